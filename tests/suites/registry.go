// A registry with the referrers API, for the suites: registry ADDRESS FOLDER.
package main

import (
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	blobs := registry.WithBlobHandler(registry.NewDiskBlobHandler(os.Args[2]))
	panic(http.ListenAndServe(os.Args[1], registry.New(registry.WithReferrersSupport(true), blobs)))
}
