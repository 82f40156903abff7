package notification

import (
	"log/slog"
	"net/http"
	"net/mail"

	"github.com/gin-gonic/gin"
	"golang.org/x/sync/singleflight"

	"orderflow/events"
	"orderflow/internal/problem"
)

type server struct {
	notifications *notifications
	inventory     inventory
	mailer        *mailer
	sending       singleflight.Group // by record
	from          mail.Address
	stockAlerts   string
	log           *slog.Logger
}

// statuses is the only place where an error becomes an HTTP status.
var statuses = problem.Table{
	{errStore, func(error) *problem.Problem { return problem.Unavailable("The state store does not answer.") }},
}

// maxOrders is how many orders may be asked about at once.
const maxOrders = 100

// listNotifications answers with the notifications of orders.
func (s *server) listNotifications(c *gin.Context) error {
	ids := c.QueryArray("orderId")
	if len(ids) < 1 || len(ids) > maxOrders {
		return problem.Invalid("Give the parameter orderId from 1 to %d times.", maxOrders)
	}
	for _, id := range ids {
		if err := events.CheckID(id); err != nil {
			return problem.Invalid("orderId: %v.", err)
		}
	}
	found, err := s.notifications.ofOrders(c.Request.Context(), ids)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"notifications": found})
	return nil
}
