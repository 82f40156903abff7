package notification

import (
	"fmt"

	"orderflow/events"
)

// decimals are how many decimal digits the minor unit of a currency takes, for
// those where it is not two: ISO 4217, table A.1. The data of CLDR, which
// golang.org/x/text/currency has, is about what people see on price tags and
// differs: it gives the Serbian dinar none, which would print a price a hundred
// times too high.
var decimals = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0,
	"RWF": 0, "UGX": 0, "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// formatMoney writes an amount with its currency's code in front, as in
// "EUR 12.50": it means the same in every country.
func formatMoney(m events.Money) string {
	places, ok := decimals[m.Currency]
	if !ok {
		places = 2
	}
	digits := fmt.Sprintf("%0*d", places+1, m.Amount) // never negative: events.CheckPrice
	whole, fraction := digits[:len(digits)-places], digits[len(digits)-places:]
	if fraction == "" {
		return m.Currency + " " + whole
	}
	return m.Currency + " " + whole + "." + fraction
}
