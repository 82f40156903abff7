package notification

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	dapr "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errNoProduct: inventory does not know the product.
var errNoProduct = errors.New("no such product")

// inventory is the inventory service, through service invocation.
type inventory struct{ client dapr.Client }

// product is what an e-mail says about a product.
type product struct {
	Name      string `json:"name"`
	Available int    `json:"available"`
	Threshold int    `json:"lowStockThreshold"` // stock is low at this many or fewer
}

// product asks for a product. Its error is errNoProduct, or says why inventory
// could not be asked.
func (i inventory) product(ctx context.Context, id string) (product, error) {
	body, err := i.client.InvokeMethod(ctx, "inventory", "products/"+id, "get")
	if status.Code(err) == codes.NotFound { // what the sidecar makes of a 404
		return product{}, errNoProduct
	}
	if err != nil {
		return product{}, fmt.Errorf("ask inventory for %s: %w", id, err)
	}
	var p product
	if err := json.Unmarshal(body, &p); err != nil {
		return product{}, fmt.Errorf("inventory's answer about %s can't be read: %w", id, err)
	}
	return p, nil
}
