package policy

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span as written with its unit: 5s, 100ms, 1m30s.
type Duration time.Duration

// DecodePolicy reads a time span; it is never negative.
func (t *Duration) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar {
		d.Errorf(n, "want a time span such as 5s, got %s", n.shape())
		return
	}
	span, err := time.ParseDuration(n.Text)
	switch {
	case (err != nil || span == 0) && looksNumeric(n.Text):
		d.Errorf(n, "a time span needs its unit, got %s", n.shape()).Hintf("write %ss", cut(n.Text))
	case err != nil:
		d.Errorf(n, "want a time span such as 5s, got %s", n.shape()).Hintf("the units are ns, us, ms, s, m and h: 100ms, 1m30s, 24h")
	case span < 0:
		d.Errorf(n, "a time span can't be negative, got %s", n.shape())
	default:
		*t = Duration(span)
	}
}

// PolicySchema describes a time span.
func (*Duration) PolicySchema(*Schemas) map[string]any {
	return map[string]any{
		"type": "string", "pattern": `^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*$`,
		"description": "a time span with its unit: 5s, 100ms, 1m30s",
	}
}

// String is a time span as people write it: 1h, where Go has 1h0m0s.
func (t Duration) String() string {
	s := time.Duration(t).String()
	for _, nothing := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, nothing) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// Percent is a share as written with its sign: 10%, 0.5%. It lies between 0 and 100, and is 0 or at least one of a million.
type Percent float64

// DecodePolicy reads a share.
func (s *Percent) DecodePolicy(d *Decode, n *Node) {
	number, ok := strings.CutSuffix(n.Text, "%")
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case n.Kind != Scalar || err != nil || !decimal(number):
		d.Errorf(n, "want a share such as 10%%, got %s", n.shape())
	case !ok:
		d.Errorf(n, "a share needs its sign, got %s", n.shape()).Hintf("write %s%%", cut(n.Text))
	case f > 100:
		d.Errorf(n, "want a share from 0%% to 100%%, got %s", n.shape())
	case f > 0 && Percent(f).Millionths() == 0:
		d.Errorf(n, "the share %s is less than one of a million, which Envoy takes for none", n.shape()).Hintf("write 0%%, or 0.0001%%")
	default:
		*s = Percent(f)
	}
}

// PolicySchema describes a share.
func (*Percent) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%$`, "description": "a share with its sign: 10%"}
}

// Millionths is the share in parts of a million, as Envoy counts fractions.
func (s Percent) Millionths() uint32 { return uint32(math.Round(float64(s) * 10_000)) }

// decimal tells whether s is digits with at most one point in between.
func decimal(s string) bool {
	whole, part, point := strings.Cut(s, ".")
	return digits(whole) && (!point || digits(part))
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Bytes is a size as written with its unit: 64KiB, 512B.
type Bytes uint64

var byteUnits = []struct {
	name string
	size uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}}

// DecodePolicy reads a size.
func (b *Bytes) DecodePolicy(d *Decode, n *Node) {
	if n.Kind != Scalar {
		d.Errorf(n, "want a size such as 64KiB, got %s", n.shape())
		return
	}
	if digits(n.Text) {
		d.Errorf(n, "a size needs its unit, got %s", n.shape()).Hintf("write %sB, or use KiB, MiB or GiB", cut(n.Text))
		return
	}
	for _, unit := range byteUnits {
		number, ok := strings.CutSuffix(n.Text, unit.name)
		if !ok || !digits(number) {
			continue
		}
		count, err := strconv.ParseUint(number, 10, 64)
		if err != nil || count > math.MaxInt64/unit.size {
			d.Errorf(n, "the size %s is too large", n.shape())
			return
		}
		*b = Bytes(count * unit.size)
		return
	}
	d.Errorf(n, "want a size such as 64KiB, got %s", n.shape()).Hintf("the units are B, KiB, MiB and GiB, after a whole number")
}

// PolicySchema describes a size.
func (*Bytes) PolicySchema(*Schemas) map[string]any {
	return map[string]any{"type": "string", "pattern": `^[0-9]+(B|KiB|MiB|GiB)$`, "description": "a size with its unit: 64KiB"}
}

// Or is what is written, or the default where nothing is.
func Or[T any](written *T, absent T) T {
	if written == nil {
		return absent
	}
	return *written
}
