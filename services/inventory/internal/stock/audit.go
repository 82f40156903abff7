package stock

import "fmt"

// Counts are what a product's movements add up to.
type Counts struct {
	Movements int   `json:"movements"`
	Received  int64 `json:"received"`
	Available int64 `json:"available"`
	Reserved  int64 `json:"reserved"`
	Shipped   int64 `json:"shipped"`
}

// Counts are those that the product holds.
func (p Product) Counts() Counts {
	return Counts{Movements: p.Movements, Received: p.Received, Available: p.Available, Reserved: p.Reserved, Shipped: p.Shipped}
}

// Rebuild is c after the movements that follow those counted in it, the oldest
// first, by the meaning of each kind and by nothing that is stored beside it. It
// also says which movements can't be.
func (c Counts) Rebuild(movements []Movement) (after Counts, wrong []string) {
	for _, m := range movements {
		c.Movements++
		switch m.Kind {
		case KindReceived:
			c.Received += m.Quantity
			c.Available += m.Quantity
		case KindReserved:
			c.Available -= m.Quantity
			c.Reserved += m.Quantity
		case KindReleased:
			c.Reserved -= m.Quantity
			c.Available += m.Quantity
		case KindShipped:
			c.Reserved -= m.Quantity
			c.Shipped += m.Quantity
		default:
			wrong = append(wrong, fmt.Sprintf("movement %d is of the unknown kind %q", c.Movements, m.Kind))
		}
		if m.Seq != c.Movements {
			wrong = append(wrong, fmt.Sprintf("movement %d says that it is number %d", c.Movements, m.Seq))
		}
		if m.Quantity < 1 {
			wrong = append(wrong, fmt.Sprintf("movement %d is of %d units", c.Movements, m.Quantity))
		}
		if c.Available < 0 || c.Reserved < 0 {
			wrong = append(wrong, fmt.Sprintf("after movement %d there are %d available and %d reserved", c.Movements, c.Available, c.Reserved))
		}
	}
	return c, wrong
}

// Audit says in what the product differs from what its movements add up to, and
// where it contradicts itself.
func (p Product) Audit(ledger Counts) (wrong []string) {
	stored := p.Counts()
	for _, count := range []struct {
		name           string
		stored, ledger int64
	}{
		{"movements", int64(stored.Movements), int64(ledger.Movements)},
		{"received", stored.Received, ledger.Received},
		{"available", stored.Available, ledger.Available},
		{"reserved", stored.Reserved, ledger.Reserved},
		{"shipped", stored.Shipped, ledger.Shipped},
	} {
		if count.stored != count.ledger {
			wrong = append(wrong, fmt.Sprintf("%s is %d, the ledger adds up to %d", count.name, count.stored, count.ledger))
		}
	}
	if sum := stored.Available + stored.Reserved + stored.Shipped; stored.Received != sum {
		wrong = append(wrong, fmt.Sprintf("received is %d, available, reserved and shipped are together %d", stored.Received, sum))
	}
	var held int64
	for _, h := range p.Live {
		held += int64(h.Quantity)
	}
	if held != stored.Reserved {
		wrong = append(wrong, fmt.Sprintf("reserved is %d, %d orders hold %d", stored.Reserved, len(p.Live), held))
	}
	return wrong
}
