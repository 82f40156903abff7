package events

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
)

// Limits of the contract. They keep an event well under what the smallest
// broker takes (1 MiB) and every number exact as an IEEE 754 double, which is
// what JSON becomes on its way through a sidecar.
const (
	MaxLines     = 999         // lines of one order
	MaxQuantity  = 10_000      // units on one line
	MaxUnitPrice = 100_000_000 // minor units, a million of the major ones
	MaxIDLength  = 128         // characters of an order, product or customer id
)

// Money is an amount in minor units (cents) of an ISO 4217 currency.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

var (
	idPattern       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*$`)
	currencyPattern = regexp.MustCompile(`^[A-Z]{3}$`)
)

// CheckID says why s can't be the id of an order, a product or a customer. An
// id is part of state keys, URLs and file names, hence the narrow alphabet.
func CheckID(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: id is empty", ErrInvalid)
	case len(s) > MaxIDLength:
		return fmt.Errorf("%w: id is longer than %d characters", ErrInvalid, MaxIDLength)
	case !idPattern.MatchString(s):
		return fmt.Errorf("%w: id may hold letters, digits, '.', '_', '~' and '-' and starts with a letter or digit", ErrInvalid)
	}
	return nil
}

// CheckEmail says why s can't be the address of a customer: it must be one bare
// RFC 5322 addr-spec of at most 254 characters, all ASCII: not every mail server
// takes others (RFC 6531), and among them are some that nobody sees.
func CheckEmail(s string) error {
	if len(s) > 254 {
		return fmt.Errorf("%w: e-mail address is longer than 254 characters", ErrInvalid)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("%w: e-mail address holds a space, a control character or one beyond ASCII", ErrInvalid)
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s {
		return fmt.Errorf("%w: e-mail address must look like name@host", ErrInvalid)
	}
	return nil
}

// CheckPrice says why m can't be the price of one unit.
func CheckPrice(m Money) error {
	if m.Amount < 0 || m.Amount > MaxUnitPrice {
		return fmt.Errorf("%w: amount must be from 0 to %d minor units", ErrInvalid, int64(MaxUnitPrice))
	}
	return checkCurrency(m.Currency)
}

func checkCurrency(s string) error {
	if !currencyPattern.MatchString(s) {
		return fmt.Errorf("%w: currency must be three capital letters (ISO 4217)", ErrInvalid)
	}
	return nil
}

// CheckItems says why items can't be the lines of an order: there are from 1 to
// MaxLines of them, each of from 1 to MaxQuantity units, none of the same
// product as another.
func CheckItems(items []Item) error {
	if len(items) == 0 {
		return fmt.Errorf("%w: items is empty", ErrInvalid)
	}
	if len(items) > MaxLines {
		return fmt.Errorf("%w: %d items, at most %d are taken", ErrInvalid, len(items), MaxLines)
	}
	seen := make(map[string]bool, len(items))
	for i, it := range items {
		if err := CheckID(it.ID); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
		if it.Quantity < 1 || it.Quantity > MaxQuantity {
			return fmt.Errorf("%w: items[%d]: quantity must be from 1 to %d", ErrInvalid, i, MaxQuantity)
		}
		if seen[it.ID] {
			return fmt.Errorf("%w: items[%d]: product %s stands on an earlier line too; add the quantities", ErrInvalid, i, it.ID)
		}
		seen[it.ID] = true
	}
	return nil
}
