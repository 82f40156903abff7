// Command console runs the console service.
package main

import (
	"orderflow/internal/process"
	"orderflow/services/console"
)

func main() {
	process.Main("console", "keeps dead letters and the timelines of orders for operators", console.ReadConfig, console.Setup)
}
