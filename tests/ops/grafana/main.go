// Reads dashboards with the Go types of Grafana's foundation SDK, strictly: a field that is missing, unknown or of another
// type is an error. Prints each error with its file; exits with status 1 if there is one.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	types := cog.NewRuntime()
	types.RegisterPanelcfgVariant(stat.VariantConfig())
	types.RegisterPanelcfgVariant(timeseries.VariantConfig())
	types.RegisterDataqueryVariant(prometheus.VariantConfig())
	status := 0
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		var board dashboard.Dashboard
		for _, err := range []error{board.UnmarshalJSONStrict(text), board.Validate()} {
			if err != nil && err.Error() != "" { // the SDK returns an empty list of errors, which is not nil
				fmt.Printf("%s:\n%v\n", path, err)
				status = 1
			}
		}
	}
	os.Exit(status)
}
