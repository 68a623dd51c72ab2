package accesslog

import (
	"strconv"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/policy"
)

// Filter is which requests a log has; all that is said must hold.
type Filter struct {
	Statuses    []Status         `policy:"statuses" doc:"the statuses of the answer: 404, 5xx, 0 where none was sent; default: any"`
	MinDuration *policy.Duration `policy:"minDuration" doc:"how long the request took at least, in whole milliseconds"`
	Sampling    *policy.Percent  `policy:"sampling" doc:"the share of these that is logged, chosen at random; default: 100%"`
}

// Status is the statuses of a class, such as 5xx, or a single one.
type Status struct{ First, Last uint32 }

// DecodePolicy reads a status or a class of them.
func (s *Status) DecodePolicy(d *policy.Decode, n *policy.Node) {
	code, err := strconv.ParseUint(n.Text, 10, 32)
	switch {
	case n.Kind == policy.Scalar && len(n.Text) == 3 && n.Text[0] >= '1' && n.Text[0] <= '5' && n.Text[1:] == "xx":
		first := uint32(n.Text[0]-'0') * 100
		*s = Status{first, first + 99}
	case n.Kind == policy.Scalar && err == nil && (code == 0 || code >= 100 && code <= 599):
		*s = Status{uint32(code), uint32(code)}
	default:
		d.Errorf(n, "want a status from 100 to 599 or 0, or a class such as 5xx")
	}
}

// PolicySchema describes both forms.
func (*Status) PolicySchema(*policy.Schemas) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"enum": []any{0, "1xx", "2xx", "3xx", "4xx", "5xx"}},
		map[string]any{"type": "integer", "minimum": 100, "maximum": 599},
	}}
}

func (f *Filter) check(c *policy.Check, path string) {
	if f.Statuses != nil && len(f.Statuses) == 0 {
		c.Errorf(path+".statuses", "name at least one status").Hintf("leave statuses out for any")
	}
	if len(f.Statuses) > maxStatuses {
		c.Errorf(path+".statuses", "%d statuses, more than %d", len(f.Statuses), maxStatuses).Hintf("write classes, such as 5xx")
	}
	if f.MinDuration != nil && (time.Duration(*f.MinDuration) < time.Millisecond || time.Duration(*f.MinDuration)%time.Millisecond != 0) {
		c.Errorf(path+".minDuration", "want whole milliseconds, such as 500ms")
	}
	if f.MinDuration != nil && time.Duration(*f.MinDuration) > maxDuration {
		c.Errorf(path+".minDuration", "want at most %s", policy.Duration(maxDuration))
	}
	if f.Sampling != nil && *f.Sampling == 0 {
		c.Errorf(path+".sampling", "nothing would be logged: want at least 0.0001%%").Hintf("write accessLog: off for no log")
	}
}

// maxStatuses is how many statuses and classes a filter may have: it is asked about each request.
const maxStatuses = 100

// maxDuration is a day: nothing that Envoy does for one request takes longer.
const maxDuration = 24 * time.Hour

// filters is Envoy's form, one for each condition.
func (f *Filter) filters() []*accesslogv3.AccessLogFilter {
	var list []*accesslogv3.AccessLogFilter
	if len(f.Statuses) > 0 {
		list = append(list, statuses(f.Statuses))
	}
	if f.MinDuration != nil {
		list = append(list, &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_DurationFilter{
			DurationFilter: &accesslogv3.DurationFilter{
				Comparison: comparison(accesslogv3.ComparisonFilter_GE, uint32(time.Duration(*f.MinDuration).Milliseconds())),
			},
		}})
	}
	if f.Sampling != nil {
		list = append(list, sample(*f.Sampling))
	}
	return list
}

// all holds where each of the filters does.
func all(filters []*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	switch len(filters) {
	case 0:
		return nil
	case 1:
		return filters[0]
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: filters},
	}}
}

// statuses holds for each of them.
func statuses(list []Status) *accesslogv3.AccessLogFilter {
	var filters []*accesslogv3.AccessLogFilter
	for _, s := range list {
		if s.First == s.Last {
			filters = append(filters, status(accesslogv3.ComparisonFilter_EQ, s.First))
			continue
		}
		filters = append(filters, all([]*accesslogv3.AccessLogFilter{
			status(accesslogv3.ComparisonFilter_GE, s.First), status(accesslogv3.ComparisonFilter_LE, s.Last),
		}))
	}
	if len(filters) == 1 {
		return filters[0]
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: filters},
	}}
}

func status(op accesslogv3.ComparisonFilter_Op, code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: comparison(op, code)},
	}}
}

// runtimeKey is wanted by Envoy where somebody might change a value while it runs; nobody sets it.
const runtimeKey = "legation.unused"

func comparison(op accesslogv3.ComparisonFilter_Op, value uint32) *accesslogv3.ComparisonFilter {
	return &accesslogv3.ComparisonFilter{
		Op:    op,
		Value: &corev3.RuntimeUInt32{DefaultValue: value, RuntimeKey: runtimeKey},
	}
}

// sample chooses by the request's id, so that all the Envoys that a request goes through choose the same.
func sample(share policy.Percent) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{
		RuntimeFilter: &accesslogv3.RuntimeFilter{
			RuntimeKey:     runtimeKey,
			PercentSampled: envoy.Fraction(share),
		},
	}}
}
