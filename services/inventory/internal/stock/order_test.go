package stock

import (
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"orderflow/events"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// shelf is products by id, each made with that many units and threshold 2.
func shelf(units map[string]int64) map[string]*Product {
	products := map[string]*Product{}
	for id, n := range units {
		p := &Product{ID: id}
		p.Describe(Details{Name: id, Price: events.Money{Amount: 100, Currency: "EUR"}, LowStockThreshold: 2}, noon)
		if n > 0 {
			if _, err := p.Receive("first", n, noon); err != nil {
				panic(err)
			}
		}
		products[id] = p
	}
	return products
}

// told are the ids of the facts' events.
func told(t *testing.T, facts []Fact) string {
	t.Helper()
	var ids []string
	for _, f := range facts {
		e, err := events.New("inventory", f.Version, f.At, f.Payload)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	return strings.Join(ids, " ")
}

// moved are the moves as "kind quantity product".
func moved(moves []Move) string {
	var s []string
	for _, m := range moves {
		s = append(s, fmt.Sprintf("%s %d %s", m.Kind, m.Quantity, m.Product.ID))
	}
	return strings.Join(s, ", ")
}

func TestDecisions(t *testing.T) {
	two := []events.Item{{ID: "cup", Quantity: 2}, {ID: "pot", Quantity: 1}}
	record := func(s Status) *Reservation {
		r := &Reservation{OrderID: "o", Status: s, Items: two, DecidedAt: noon, SettledAt: noon}
		switch s {
		case Rejected:
			r.Shortages = []events.Shortage{{ID: "pot", Requested: 1}}
		case Reserved, Released, Shipped:
			r.Held = map[string]int{"cup": 2, "pot": 2} // the second movement of each product
		}
		return r
	}
	other := record(Reserved)
	other.Held = map[string]int{"cup": 1, "pot": 2}
	enough := map[string]int64{"cup": 10, "pot": 10}
	reserve, release := Order.Reserve, Order.Release
	tests := []struct {
		name   string
		stock  map[string]int64
		held   []string // products that hold their line already
		record *Reservation
		decide func(Order, time.Time) (Decision, error)

		want  Status // of the record that is written, "" if none is
		first bool   // written before the products
		moves string
		facts string
		odd   bool
	}{
		{"all lines are there", enough, nil, nil, reserve,
			Reserved, false, "reserved 2 cup, reserved 1 pot", "o:1:INVENTORY_RESERVED", false},
		{"one line is short: nothing is held", map[string]int64{"cup": 10, "pot": 0}, nil, nil, reserve,
			Rejected, false, "", "o:1:INVENTORY_REJECTED", false},
		{"a product does not exist", map[string]int64{"cup": 10}, nil, nil, reserve,
			Rejected, false, "", "o:1:INVENTORY_REJECTED", false},
		{"stock becomes low", map[string]int64{"cup": 4, "pot": 10}, nil, nil, reserve,
			Reserved, false, "reserved 2 cup, reserved 1 pot", "o:1:INVENTORY_RESERVED cup:3:STOCK_LOW", false},
		{"half applied: the rest is held", enough, []string{"cup"}, nil, reserve,
			Reserved, false, "reserved 1 pot", "o:1:INVENTORY_RESERVED", false},
		{"half applied: the notice of low stock is not lost", map[string]int64{"cup": 4, "pot": 10}, []string{"cup"}, nil, reserve,
			Reserved, false, "reserved 1 pot", "o:1:INVENTORY_RESERVED cup:3:STOCK_LOW", false},
		{"half applied, and now a line is short: given back, after the record says so", map[string]int64{"cup": 10, "pot": 0}, []string{"cup"}, nil, reserve,
			Rejected, true, "released 2 cup", "o:1:INVENTORY_REJECTED", false},
		{"reserved before: the same answer", enough, []string{"cup", "pot"}, record(Reserved), reserve,
			"", false, "", "o:1:INVENTORY_RESERVED", false},
		{"reserved before: the same notice", map[string]int64{"cup": 4, "pot": 10}, []string{"cup", "pot"}, record(Reserved), reserve,
			"", false, "", "o:1:INVENTORY_RESERVED cup:3:STOCK_LOW", false},
		{"reserved before, and shipped, and held once more: a leftover", enough, []string{"cup"}, other, reserve,
			"", false, "released 2 cup", "o:1:INVENTORY_RESERVED", false},
		{"rejected before: the same answer, though there is enough by now", enough, nil, record(Rejected), reserve,
			"", false, "", "o:1:INVENTORY_REJECTED", false},
		{"rejected meanwhile: what is held is a leftover", enough, []string{"cup"}, record(Rejected), reserve,
			"", false, "released 2 cup", "o:1:INVENTORY_REJECTED", false},
		{"created after it was cancelled: nothing is held", enough, nil, record(Cancelled), reserve,
			"", false, "", "", false},
		{"cancelled meanwhile: what is held is a leftover", enough, []string{"cup", "pot"}, record(Cancelled), reserve,
			"", false, "released 2 cup, released 1 pot", "", false},
		{"created again after it was released", enough, []string{"pot"}, record(Released), reserve,
			"", false, "released 1 pot", "o:2:INVENTORY_RELEASED", false},
		{"created again after it was shipped", enough, []string{"pot"}, record(Shipped), reserve,
			"", false, "released 1 pot", "o:1:INVENTORY_RESERVED", false},

		{"completed", enough, []string{"cup", "pot"}, record(Reserved), ship,
			Shipped, false, "shipped 2 cup, shipped 1 pot", "", false},
		{"completed: the notice of low stock once more", map[string]int64{"cup": 4, "pot": 10}, []string{"cup", "pot"}, record(Reserved), ship,
			Shipped, false, "shipped 2 cup, shipped 1 pot", "cup:3:STOCK_LOW", false},
		{"half shipped: the rest", enough, []string{"pot"}, record(Reserved), ship,
			Shipped, false, "shipped 1 pot", "", false},
		{"half shipped, and held once more: a leftover", enough, []string{"cup", "pot"}, other, ship,
			Shipped, false, "released 2 cup, shipped 1 pot", "", false},
		{"completed twice", enough, nil, record(Shipped), ship,
			"", false, "", "", false},
		{"completed without a record: the products know", enough, []string{"cup", "pot"}, nil, ship,
			Shipped, false, "shipped 2 cup, shipped 1 pot", "", true},
		{"completed though rejected", enough, nil, record(Rejected), ship,
			"", false, "", "", true},

		{"cancelled", enough, []string{"cup", "pot"}, record(Reserved), release,
			Released, true, "released 2 cup, released 1 pot", "o:2:INVENTORY_RELEASED", false},
		{"cancelled twice: the same answer", enough, nil, record(Released), release,
			"", true, "", "o:2:INVENTORY_RELEASED", false},
		{"half given back: the rest", enough, []string{"pot"}, record(Released), release,
			"", true, "released 1 pot", "o:2:INVENTORY_RELEASED", false},
		{"cancelled before it was created", enough, nil, nil, release,
			Cancelled, true, "", "", false},
		{"cancelled before a half applied creation was recorded", enough, []string{"cup"}, nil, release,
			Cancelled, true, "released 2 cup", "", false},
		{"cancelled because rejected", enough, nil, record(Rejected), release,
			"", true, "", "", false},
		{"cancelled though shipped", enough, nil, record(Shipped), release,
			"", true, "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Order{ID: "o", Items: two, Record: tt.record, Products: shelf(tt.stock)}
			for _, it := range two {
				for _, id := range tt.held {
					if id == it.ID {
						o.Products[id].hold("o", it.Quantity, noon)
					}
				}
			}
			var before Reservation
			if tt.record != nil {
				before = *tt.record
			}
			d, err := tt.decide(o, noon)
			if err != nil {
				t.Fatal(err)
			}
			var got Status
			if d.Record != nil {
				got = d.Record.Status
			}
			if got != tt.want || d.RecordFirst != tt.first {
				t.Errorf("record %q, first %v; want %q, %v", got, d.RecordFirst, tt.want, tt.first)
			}
			// Who gives back after the record says so may die in between.
			if owes := d.Record != nil && d.RecordFirst && len(d.Moves) > 0; d.Record != nil && d.Record.GivingBack != owes || o.GivingBack(d) != owes {
				t.Errorf("record %+v, giving back %v; want that it says so: %v", d.Record, o.GivingBack(d), owes)
			}
			if s := moved(d.Moves); s != tt.moves {
				t.Errorf("moves %q, want %q", s, tt.moves)
			}
			if s := told(t, d.Facts); s != tt.facts {
				t.Errorf("facts %q, want %q", s, tt.facts)
			}
			if (d.Oddity != "") != tt.odd {
				t.Errorf("oddity %q", d.Oddity)
			}
			if tt.record != nil && !reflect.DeepEqual(*tt.record, before) {
				t.Errorf("the record was changed in place")
			}
		})
	}
}

// Whoever dies over giving back leaves a record that says so. Whatever event comes
// next, it is given back and the record says so no longer; and not before.
func TestWhatIsBeingGivenBack(t *testing.T) {
	items := []events.Item{{ID: "cup", Quantity: 2}, {ID: "pot", Quantity: 1}}
	for _, status := range []Status{Rejected, Released, Cancelled} {
		for name, decide := range map[string]func(Order, time.Time) (Decision, error){"created": Order.Reserve, "completed": ship, "cancelled": Order.Release} {
			t.Run(string(status)+" "+name, func(t *testing.T) {
				record := &Reservation{OrderID: "o", Status: status, Items: items, GivingBack: true}
				o := Order{ID: "o", Items: items, Record: record, Products: shelf(map[string]int64{"cup": 5, "pot": 5})}
				o.Products["cup"].hold("o", 2, noon)
				if d, err := o.GivenBack(noon); !errors.Is(err, ErrTorn) || d.Record != nil {
					t.Errorf("while something is held: %+v, %v", d, err)
				}
				d, err := decide(o, noon)
				if err != nil || moved(d.Moves) != "released 2 cup" || !o.GivingBack(d) || d.Record != nil {
					t.Fatalf("decided %+v, %v", d, err)
				}
				d, err = o.GivenBack(noon)
				if err != nil || d.Record == nil || d.Record.GivingBack || d.Record.Status != status || len(d.Moves) > 0 || !record.GivingBack {
					t.Errorf("once nothing is: %+v, %v", d, err)
				}
				o.Record = d.Record
				if d, err := o.GivenBack(noon); err != nil || !reflect.DeepEqual(d, Decision{}) {
					t.Errorf("once more: %+v, %v", d, err)
				}
			})
		}
	}
}

func ship(o Order, at time.Time) (Decision, error) { return o.Ship(at), nil }

// Under RESERVED all lines are held; a cancel that sees it otherwise has read a
// product before it was filled, and must not miss it.
func TestATornReadIsNoDecision(t *testing.T) {
	items := []events.Item{{ID: "cup", Quantity: 2}, {ID: "pot", Quantity: 1}}
	o := Order{ID: "o", Items: items, Record: &Reservation{OrderID: "o", Status: Reserved, Items: items, Held: map[string]int{"cup": 2, "pot": 2}}, Products: shelf(map[string]int64{"cup": 5, "pot": 5})}
	o.Products["pot"].hold("o", 1, noon)
	before := *o.Products["pot"]
	if d, err := o.Release(noon); !errors.Is(err, ErrTorn) || !reflect.DeepEqual(d, Decision{}) {
		t.Errorf("decided %+v, %v", d, err)
	}
	if !reflect.DeepEqual(*o.Products["pot"], before) {
		t.Error("a product was changed")
	}
}

func TestShortagesNameEveryLine(t *testing.T) {
	items := []events.Item{{ID: "cup", Quantity: 3}, {ID: "ghost", Quantity: 1}, {ID: "pot", Quantity: 1}}
	d, err := Order{ID: "o", Items: items, Products: shelf(map[string]int64{"cup": 2, "pot": 5})}.Reserve(noon)
	if err != nil {
		t.Fatal(err)
	}
	want := []events.Shortage{{ID: "cup", Requested: 3, Available: 2}, {ID: "ghost", Requested: 1}}
	if !reflect.DeepEqual(d.Record.Shortages, want) {
		t.Errorf("shortages %v, want %v", d.Record.Shortages, want)
	}
}

func TestAProductIsHeldForSoManyOrdersOnly(t *testing.T) {
	products := shelf(map[string]int64{"cup": 1_000_000, "pot": 5})
	for i := range MaxLive {
		products["cup"].hold(fmt.Sprintf("o-%d", i), 1, noon)
	}
	o := Order{ID: "late", Items: []events.Item{{ID: "pot", Quantity: 1}, {ID: "cup", Quantity: 1}}, Products: products}
	before := *products["pot"]
	if _, err := o.Reserve(noon); !errors.Is(err, ErrBusy) {
		t.Fatalf("err = %v, want ErrBusy", err)
	}
	if !reflect.DeepEqual(*products["pot"], before) {
		t.Error("the other line was held all the same")
	}
	products["cup"].ship("o-7", noon)
	if _, err := o.Reserve(noon); err != nil {
		t.Errorf("after one was shipped: %v", err)
	}
}

// The core decides; it must not be able to do anything else.
func TestTheCoreIsPure(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"orderflow/events", "orderflow/services/inventory/internal/stock"}
	if got := strings.Fields(string(out)); !reflect.DeepEqual(got, want) {
		t.Errorf("depends on %v, want %v", got, want)
	}
}
