package main

import (
	"log/slog"
	"net/http"
	"net/mail"

	"github.com/gin-gonic/gin"

	"orderflow/events"
	"orderflow/internal/problem"
)

type server struct {
	notifications *notifications
	inventory     inventory
	mailer        *mailer
	from          mail.Address
	stockAlerts   string
	log           *slog.Logger
}

// statuses is the only place where an error becomes an HTTP status.
var statuses = problem.Table{
	{errStore, func(error) *problem.Problem { return problem.Unavailable("The state store does not answer.") }},
}

// listNotifications answers with the notifications of one order.
func (s *server) listNotifications(c *gin.Context) error {
	ids := c.QueryArray("orderId")
	if len(ids) != 1 || events.CheckID(ids[0]) != nil {
		return problem.Invalid("Give the parameter orderId once, with the id of an order: from 1 to %d letters, digits, '.', '_', '~' and '-', of which the first is a letter or digit.", events.MaxIDLength)
	}
	found, err := s.notifications.ofOrder(c.Request.Context(), ids[0])
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, gin.H{"notifications": found})
	return nil
}
