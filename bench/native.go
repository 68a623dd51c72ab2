package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/legation/legation/bench/rig"
)

// native is what legation has Envoy do with tokens where it verifies them itself, in Envoy's JSON.
type native struct{ filters, route string }

// rendered is the part of a configuration that holds the filters of its one listener, and what its routes say to them.
type rendered struct {
	Resources struct {
		Listeners []struct {
			Chains []struct {
				Filters []struct {
					Config struct {
						HTTPFilters []json.RawMessage `json:"http_filters"`
						Routes      struct {
							Hosts []struct {
								Routes []struct {
									Name    string                     `json:"name"`
									Filters map[string]json.RawMessage `json:"typed_per_filter_config"`
								} `json:"routes"`
							} `json:"virtual_hosts"`
						} `json:"route_config"`
					} `json:"typed_config"`
				} `json:"filters"`
			} `json:"filter_chains"`
		} `json:"listeners"`
	} `json:"static_resources"`
}

// native takes the filters of auth out of the configuration that legation makes; they ask the contestant.
func (b *bench) native(ctx context.Context) (*native, error) {
	p := rig.Policy{Auth: b.issuer.EntryOfEnvoy(), Routes: []rig.Route{{Name: "auth", Auth: "[idp]"}}}
	text, err := b.rig.Render(ctx, p.String())
	if err != nil {
		return nil, err
	}
	var all rendered
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	n := new(native)
	ours := func(name string) bool { return name == "legation.auth" || strings.HasPrefix(name, "legation.jwt") }
	for _, l := range all.Resources.Listeners {
		manager := l.Chains[0].Filters[0].Config
		for _, f := range manager.HTTPFilters {
			var named struct{ Name string }
			if err := json.Unmarshal(f, &named); err != nil {
				return nil, err
			}
			if ours(named.Name) {
				n.filters += strings.ReplaceAll(string(f), `"legation_companion"`, `"legation"`) + ","
			}
		}
		for _, h := range manager.Routes.Hosts {
			for _, r := range h.Routes {
				for name, config := range r.Filters {
					if r.Name == "auth" && ours(name) {
						n.route += fmt.Sprintf("%q: %s,", name, config)
					}
				}
			}
		}
	}
	if n.route = strings.TrimSuffix(n.route, ","); n.route == "" {
		return nil, fmt.Errorf("legation has Envoy verify nothing")
	}
	return n, nil
}
