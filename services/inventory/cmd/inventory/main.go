// Command inventory runs the inventory service.
package main

import (
	"orderflow/internal/process"
	"orderflow/services/inventory"
)

func main() {
	process.Main("inventory", "counts products, holds them for orders, ships them and takes them back", inventory.ReadConfig, inventory.Setup)
}
