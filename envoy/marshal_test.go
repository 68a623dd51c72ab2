package envoy_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/legation/legation/envoy"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What is put together of the bytes of a table before is what marshalling gives, whatever has changed between the two.
func TestMarshalOfAChangedTableIsThatOfAWholeOne(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 40))
	table, size := randomTable(r, nil), 0
	before, err := envoy.Marshal(table, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		next := randomTable(r, table.VirtualHosts)
		got, err := envoy.Marshal(next, table, before)
		if err != nil {
			t.Fatal(err)
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(next)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("after\n%v\nof\n%v\ngot  %x\nwant %x", table, next, got, want)
		}
		table, before, size = next, got, max(size, len(got))
	}
	if size < 1000 {
		t.Errorf("the largest table had %d bytes: these tables tell nothing", size)
	}
}

// randomTable has some of the hosts, maybe in another order, new ones, and some of the other fields.
func randomTable(r *rand.Rand, hosts []*routev3.VirtualHost) *routev3.RouteConfiguration {
	table := &routev3.RouteConfiguration{}
	for _, h := range hosts {
		if r.IntN(8) > 0 {
			table.VirtualHosts = append(table.VirtualHosts, h)
		}
	}
	for range r.IntN(4) {
		h := &routev3.VirtualHost{Name: fmt.Sprint("h", r.IntN(1000)), Domains: []string{"a.test"}}
		for i := range r.IntN(4) {
			h.Routes = append(h.Routes, &routev3.Route{Name: fmt.Sprint(i), TypedPerFilterConfig: map[string]*anypb.Any{
				"a": envoy.Pack(envoy.On), "b": envoy.Pack(envoy.Off), "c": envoy.Pack(envoy.On),
			}})
		}
		table.VirtualHosts = append(table.VirtualHosts, h)
	}
	if n := len(table.VirtualHosts); n > 1 && r.IntN(4) == 0 {
		i, j := r.IntN(n), r.IntN(n)
		table.VirtualHosts[i], table.VirtualHosts[j] = table.VirtualHosts[j], table.VirtualHosts[i]
	}
	for _, fill := range []func(){
		func() { table.Name = "http" },
		func() { table.ResponseHeadersToRemove = []string{"server", "x-powered-by"} },
		func() { table.RequestHeadersToRemove = []string{"x-legation-scope"} },
		func() { table.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(uint32(r.IntN(2))) },
		func() { table.MostSpecificHeaderMutationsWins = true },
		func() { table.InternalOnlyHeaders = []string{""} },
		func() { table.Vhds = &routev3.Vhds{ConfigSource: &corev3.ConfigSource{}} },
	} {
		if r.IntN(2) == 0 {
			fill()
		}
	}
	return table
}
