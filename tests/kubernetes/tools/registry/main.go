// The distribution registry with the storage that the cluster gives it. Upstream's own program has the drivers of three
// clouds' stores as well, which take minutes to compile.
package main

import (
	"os"

	"github.com/distribution/distribution/v3/registry"

	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
