package stock

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAudit(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	history := func() (*Product, []Movement) {
		p := &Product{ID: "cup"}
		moves, err := p.Receive("r-1", 10, at)
		if err != nil {
			t.Fatal(err)
		}
		moves = append(moves, p.hold("o-1", 3, at), p.hold("o-2", 2, at), p.ship("o-1", at), p.release("o-2", at), p.hold("o-3", 4, at))
		var ledger []Movement
		for _, m := range moves {
			ledger = append(ledger, m.Movement)
		}
		return p, ledger
	}
	tests := []struct {
		name  string
		spoil func(*Product, []Movement) []Movement
		says  []string // parts of what is said, none if all is well
	}{
		{"all is well", func(_ *Product, m []Movement) []Movement { return m }, nil},
		{"a movement is missing", func(_ *Product, m []Movement) []Movement { return slices.Delete(m, 2, 3) },
			[]string{"movement 3 says that it is number 4", "movements is 6, the ledger adds up to 5"}},
		{"a movement was changed", func(_ *Product, m []Movement) []Movement { m[3].Quantity = 1; return m },
			[]string{"reserved is 4, the ledger adds up to 6", "shipped is 3, the ledger adds up to 1"}},
		{"more was reserved than there was", func(_ *Product, m []Movement) []Movement { m[1].Quantity = 30; return m },
			[]string{"after movement 2 there are -20 available"}},
		{"a movement is of no kind", func(_ *Product, m []Movement) []Movement { m[5].Kind = "lost"; return m }, []string{`unknown kind "lost"`}},
		{"a movement is of nothing", func(_ *Product, m []Movement) []Movement { m[5].Quantity = 0; return m }, []string{"movement 6 is of 0 units"}},
		{"a counter was changed", func(p *Product, m []Movement) []Movement { p.Available++; return m },
			[]string{"available is 4, the ledger adds up to 3", "received is 10, available, reserved and shipped are together 11"}},
		{"a hold is forgotten", func(p *Product, m []Movement) []Movement { delete(p.Live, "o-3"); return m }, []string{"reserved is 4, 0 orders hold 0"}},
		{"a hold is left over", func(p *Product, m []Movement) []Movement { p.Live["o-1"] = Hold{Quantity: 3, Seq: 2}; return m },
			[]string{"reserved is 4, 2 orders hold 7"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, ledger := history()
			ledger = tt.spoil(p, ledger)
			// In pieces, as it is read.
			half, wrong := Counts{}.Rebuild(ledger[:2])
			counts, more := half.Rebuild(ledger[2:])
			wrong = append(append(wrong, more...), p.Audit(counts)...)
			said := strings.Join(wrong, "; ")
			for _, part := range tt.says {
				if !strings.Contains(said, part) {
					t.Errorf("%q does not say %q", said, part)
				}
			}
			if len(tt.says) == 0 && said != "" {
				t.Error(said)
			}
		})
	}
}
