// Command notification runs the notification service.
package main

import (
	"orderflow/internal/process"
	"orderflow/services/notification"
)

func main() {
	process.Main("notification", "writes e-mails about orders and low stock", notification.ReadConfig, notification.Setup)
}
