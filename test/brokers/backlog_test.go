package brokers

import (
	"errors"
	"strings"
	"testing"
)

func TestBacklogOfRabbitMQ(t *testing.T) {
	const table = "name\tmessages\ninventory-order-events\t0\norder-inventory-events\t7\n"
	if got := backlog([]byte(table), 0, 1); got != "order-inventory-events: 7" {
		t.Errorf("got %q", got)
	}
}

func TestBacklogOfKafka(t *testing.T) {
	const table = `
GROUP      TOPIC        PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  CONSUMER-ID  HOST  CLIENT-ID
inventory  order-events 0          12              12              0    c-1          /     c
inventory  order-events 1          -               0               -    c-1          /     c

GROUP      TOPIC        PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  CONSUMER-ID  HOST  CLIENT-ID
order      inventory-events 3      5               8               3    -            -     -
console    order-events 4          -               2               -    -            -     -
`
	got, err := kafkaBacklog(table)
	if want := "inventory-events of order, partition 3: 3; order-events of console, partition 4: 2"; err != nil || got != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	if _, err := kafkaBacklog("\n"); !errors.Is(err, errNobodyReads) {
		t.Errorf("of nothing: %v", err)
	}
	if _, err := kafkaBacklog("\nError: timed out\n"); err == nil || errors.Is(err, errNobodyReads) || !strings.Contains(err.Error(), "timed out") {
		t.Errorf("of a failure: %v", err)
	}
}
