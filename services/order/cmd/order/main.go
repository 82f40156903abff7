// Command order runs the order service.
package main

import (
	"orderflow/internal/process"
	"orderflow/services/order"
)

func main() {
	process.Main("order", "takes orders and leads each to its end", order.ReadConfig, order.Setup)
}
