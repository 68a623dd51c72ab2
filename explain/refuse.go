package explain

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Refusal is an answer of Envoy itself, before any backend and before anybody is asked who they are.
type Refusal struct {
	Status int    `json:"status"`
	By     string `json:"by"` // the filter, or the listener
	Why    string `json:"why"`
}

// acting is a filter of the chain that acts on a route, with its configuration for the route; nil where that is the
// chain's own.
type acting struct {
	*hcmv3.HttpFilter
	config *anypb.Any
}

// filters is those that act on a route, or where there is none, in the order in which a request goes through them.
func filters(manager *hcmv3.HttpConnectionManager, r *routev3.Route) []acting {
	var all []acting
	for _, f := range manager.GetHttpFilters() {
		own, configured := r.GetTypedPerFilterConfig()[f.Name]
		on := !f.Disabled
		if configured {
			var wrapped routev3.FilterConfig
			on = true
			if own.UnmarshalTo(&wrapped) == nil {
				on, own = !wrapped.Disabled, wrapped.Config
			}
		}
		if on {
			all = append(all, acting{f, own})
		}
	}
	return all
}

// upgraded tells of a request that Envoy refuses because neither the route nor the listener takes the protocol that it asks
// to go on in. Envoy does so before any filter.
func upgraded(manager *hcmv3.HttpConnectionManager, r *routev3.Route, a *asked) *Refusal {
	protocol := a.first("upgrade")
	if a.Headers["upgrade"] == nil || r == nil || slices.ContainsFunc(r.GetRoute().GetUpgradeConfigs(), func(u *routev3.RouteAction_UpgradeConfig) bool {
		return strings.EqualFold(u.UpgradeType, protocol) && (u.Enabled == nil || u.Enabled.Value)
	}) || slices.ContainsFunc(manager.GetUpgradeConfigs(), func(u *hcmv3.HttpConnectionManager_UpgradeConfig) bool {
		return strings.EqualFold(u.UpgradeType, protocol) && (u.Enabled == nil || u.Enabled.Value)
	}) {
		return nil
	}
	return &Refusal{403, "the listener", "no upgrade to " + protocol + " is taken here (upgrades takes it)"}
}

// preflight tells whether the filter cors answers the request, whatever origin it is from.
func preflight(chain []acting, r *routev3.Route, a *asked) bool {
	return r.GetRoute() != nil && a.Method == http.MethodOptions && a.first("origin") != "" &&
		a.first("access-control-request-method") != "" && slices.ContainsFunc(chain, func(f acting) bool {
		return f.config.MessageIs(&corsv3.CorsPolicy{})
	})
}

// refused tells of the first filter at the door that refuses the request.
func (d *door) refused(chain []acting, a *asked, serverName string) (refusal *Refusal, unsure string) {
	for _, f := range chain {
		var base rbacfilterv3.RBAC
		if f.GetTypedConfig().UnmarshalTo(&base) != nil {
			continue
		}
		rules := base.Rules
		var own rbacfilterv3.RBACPerRoute
		if f.config != nil && f.config.UnmarshalTo(&own) == nil {
			rules = own.GetRbac().GetRules()
		}
		if rules == nil {
			continue
		}
		refusal, unsure := d.rules(f.Name, rules, a, serverName)
		if refusal != nil || unsure != "" {
			return refusal, unsure
		}
	}
	return nil, ""
}

func (d *door) rules(filter string, rules *rbacv3.RBAC, a *asked, serverName string) (*Refusal, string) {
	for _, name := range slices.Sorted(maps.Keys(rules.Policies)) {
		holds, known := d.holds(name, rules.Policies[name], a, serverName)
		switch {
		case !known:
			return nil, filter + " lets some clients in only: say the address with --from"
		case holds && rules.Action == rbacv3.RBAC_DENY:
			return d.denial(filter, name, rules.Policies[name], a), ""
		case holds:
			return nil, ""
		}
	}
	if rules.Action == rbacv3.RBAC_DENY {
		return nil, ""
	}
	return &Refusal{403, filter, fmt.Sprintf("the client %s may not come", a.Client)}, ""
}

// misdirected is the name of the policy by which requests on the wrong connection are refused; its condition is an
// expression that is known here.
const misdirected = "misdirected"

// denial is what a filter of ours answers: local replies turn RBAC's 403 into these.
func (d *door) denial(filter, name string, p *rbacv3.Policy, a *asked) *Refusal {
	if name == misdirected {
		return &Refusal{421, filter, fmt.Sprintf("the host %s is not the server name that the connection was made for", a.Host)}
	}
	i := slices.IndexFunc(p.Permissions, func(one *rbacv3.Permission) bool { return d.permission(one, a) })
	switch p.Permissions[i].GetNotRule().GetHeader().GetName() {
	case ":authority":
		return &Refusal{400, filter, fmt.Sprintf("the host %q can be read in more than one way", a.Host)}
	case ":method":
		return &Refusal{400, filter, fmt.Sprintf("the method %q can be read in more than one way: methods are upper case", a.Method)}
	}
	return &Refusal{400, filter, fmt.Sprintf("the path %s can be read in more than one way (paths: lenient takes it)", a.path)}
}

func (d *door) holds(name string, p *rbacv3.Policy, a *asked, serverName string) (holds, known bool) {
	if name == misdirected {
		return serverName != "" && serverName != strings.ToLower(a.Host), true
	}
	if !slices.ContainsFunc(p.Permissions, func(one *rbacv3.Permission) bool { return d.permission(one, a) }) {
		return false, true
	}
	for _, one := range p.Principals {
		if holds, known = principal(one, a.Client); holds || !known {
			return holds, known
		}
	}
	return false, true
}

func (d *door) permission(p *rbacv3.Permission, a *asked) bool {
	switch rule := p.Rule.(type) {
	case *rbacv3.Permission_Any:
		return rule.Any
	case *rbacv3.Permission_NotRule:
		return !d.permission(rule.NotRule, a)
	case *rbacv3.Permission_Header:
		return d.matcher.header(rule.Header, a)
	}
	return false
}

// principal tells whether a client is meant; known is false where that hangs on an address which nobody has told.
func principal(p *rbacv3.Principal, client netip.Addr) (holds, known bool) {
	switch id := p.Identifier.(type) {
	case *rbacv3.Principal_Any:
		return id.Any, true
	case *rbacv3.Principal_NotId:
		holds, known = principal(id.NotId, client)
		return !holds, known
	case *rbacv3.Principal_AndIds:
		for _, one := range id.AndIds.Ids {
			if holds, known = principal(one, client); !holds || !known {
				return false, known
			}
		}
		return true, true
	case *rbacv3.Principal_OrIds:
		for _, one := range id.OrIds.Ids {
			if holds, known = principal(one, client); holds || !known {
				return holds, known
			}
		}
		return false, true
	case *rbacv3.Principal_RemoteIp:
		return client.IsValid() && netipIn(id, client), client.IsValid()
	}
	return false, false
}

func netipIn(id *rbacv3.Principal_RemoteIp, client netip.Addr) bool {
	address, err := netip.ParseAddr(id.RemoteIp.AddressPrefix)
	return err == nil && netip.PrefixFrom(address, int(id.RemoteIp.PrefixLen.GetValue())).Masked().Contains(client)
}
