package process

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"

	"orderflow/internal/problem"
)

// tokenHeader carries the API token to the sidecar and the app token from it.
const tokenHeader = "dapr-api-token"

func (p *Process) routes(appToken string) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	// A path is routed as it was sent and its parameters are decoded after: an
	// id can't reach out of its place with %2F or dots.
	r.UseRawPath = true
	r.UnescapePathValues = true
	r.RedirectTrailingSlash = false
	r.HandleMethodNotAllowed = true
	r.NoRoute(func(c *gin.Context) {
		problem.Write(c, problem.New(http.StatusNotFound, "no-such-route", "There is nothing here", "No route of %s has this path.", p.Name))
	})
	r.NoMethod(func(c *gin.Context) {
		problem.Write(c, problem.New(http.StatusMethodNotAllowed, "method-not-allowed", "The route has no such method", "It has %s.", c.Writer.Header().Get("Allow")))
	})
	r.GET("/healthz/live", func(c *gin.Context) { c.Status(http.StatusNoContent) })
	r.GET("/healthz/ready", p.answerReady)
	p.router = r
	p.Public = r.Group("", otelgin.Middleware(p.Name), p.logRequest, p.recoverPanic())
	p.Events = r.Group("", requireToken(appToken), p.recoverPanic())
	p.Admin = r.Group("", otelgin.Middleware(p.Name), p.logRequest, requireToken(appToken), p.recoverPanic())
}

// recoverPanic answers a request whose handler panicked. It stands inside of
// what logs and traces the request, so that both tell of it.
func (p *Process) recoverPanic() gin.HandlerFunc {
	return gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, cause any) {
		p.Log.ErrorContext(c.Request.Context(), "panic", "route", c.FullPath(), "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
		problem.Write(c, problem.Internal())
	})
}

// answerReady is 204 while this service can do its work: it is not ending and
// its sidecar is there.
func (p *Process) answerReady(c *gin.Context) {
	if !p.ready.Load() {
		problem.Write(c, problem.Unavailable("The service is starting or ending."))
		return
	}
	if err := p.sidecar.check(c.Request.Context()); err != nil {
		problem.Write(c, problem.Unavailable("The sidecar is not ready: %v.", err))
		return
	}
	c.Status(http.StatusNoContent)
}

// requireToken lets only those in who know the token; an empty one, everyone.
func requireToken(token string) gin.HandlerFunc {
	return func(c *gin.Context) {
		if token != "" && subtle.ConstantTimeCompare([]byte(c.GetHeader(tokenHeader)), []byte(token)) != 1 {
			problem.Write(c, problem.New(http.StatusUnauthorized, "unauthorized", "The token is missing or wrong",
				"This route is for the service's sidecar and for operators; they send the app token in the header %s.", tokenHeader))
		}
	}
}

// logRequest writes one line per request. It names the route, not the path, and
// leaves out the query: either may hold what a log must not.
func (p *Process) logRequest(c *gin.Context) {
	begin := time.Now()
	c.Next()
	attrs := []any{"method", c.Request.Method, "route", c.FullPath(), "status", c.Writer.Status(), "ms", time.Since(begin).Milliseconds()}
	for _, param := range c.Params {
		if v := param.Value; len(v) <= 128 && !strings.ContainsAny(v, " @\r\n") {
			attrs = append(attrs, param.Key, v)
		}
	}
	p.Log.InfoContext(c.Request.Context(), "request", attrs...)
}

// Routes lists the routes of the service, "METHOD /path", for the test that
// holds them against its OpenAPI document.
func (p *Process) Routes() []string {
	var routes []string
	for _, r := range p.router.Routes() {
		routes = append(routes, r.Method+" "+r.Path)
	}
	return routes
}
