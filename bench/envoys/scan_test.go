package envoys

import (
	"slices"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// A response is read in pieces, as frames have them.
func TestScannerKeepsWhatAnAcknowledgementNeeds(t *testing.T) {
	t.Parallel()
	b, err := proto.Marshal(&discoveryv3.DeltaDiscoveryResponse{
		SystemVersionInfo: "v1", TypeUrl: "t", Nonce: "n1", RemovedResources: []string{"gone"},
		Resources: []*discoveryv3.Resource{{Name: "a", Version: strings.Repeat("x", 5000)}, {Name: "b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 7, len(b)} {
		var s scanner
		for piece := range slices.Chunk(b, size) {
			s.take(piece)
		}
		if s.version != "v1" || s.url != "t" || s.nonce != "n1" {
			t.Errorf("in pieces of %d: version %q, type %q, nonce %q", size, s.version, s.url, s.nonce)
		}
	}
}
