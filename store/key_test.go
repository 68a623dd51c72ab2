package store

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKeyIsReadable(t *testing.T) {
	for want, parts := range map[string][]string{
		"route/orders/0|203.0.113.7":   {"route/orders/0", "203.0.113.7"},
		"a%7Cb|c":                      {"a|b", "c"},
		"a|b%7Cc":                      {"a", "b|c"},
		"g/0|":                         {"g/0", ""},
		"%7Bx%7D|%00%25|idp/al@ex.com": {"{x}", "\x00%", "idp/al@ex.com"},
	} {
		if got := Key(parts...); got != want {
			t.Errorf("Key(%q) = %s, want %s", parts, got, want)
		}
	}
	if long := Key("a", strings.Repeat("x", 1<<20)); len(long) > 60 || !strings.HasPrefix(long, "a|xxxxxxxx#") {
		t.Errorf("long: %s", long)
	}
}

func redisKey(h *Hit, now int64) string {
	var b batch
	b.windows.begin(now)
	return string(b.appendKey(nil, h))
}

func TestRedisKey(t *testing.T) {
	now := time.Date(2026, 11, 21, 18, 30, 0, 0, time.UTC).UnixMicro()
	for want, h := range map[string]Hit{
		"legation:{route/a/0|1.2.3.4}:1h/498690": {Key: Key("route/a/0", "1.2.3.4"), Window: time.Hour},
		"legation:{a|b%7Cc}:gcra":                {Key: Key("a", "b|c"), Algorithm: GCRA},
		"legation:{a|b}:90m/log":                 {Key: Key("a", "b"), Algorithm: SlidingWindow, Window: 90 * time.Minute},
		"legation:{~a%7D}:1m/29921430":           {Key: "a}", Window: time.Minute},
		"legation:{~}:1500ms/1196857200":         {Window: 1500 * time.Millisecond},
	} {
		if got := redisKey(&h, now); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := slot("123456789"); got != 0x31C3 { // the check value of CRC16/XMODEM, within 16384
		t.Errorf("slot %#x", got)
	}
}

// FuzzKey holds that different parts give different keys, and that no bytes leave the hash tag.
func FuzzKey(f *testing.F) {
	f.Add("a|b", "c", "a", "b|c")
	f.Add("a", "", "", "a")
	f.Add("{", "}", "%7B", "~")
	f.Add(strings.Repeat("x", 41), "#", strings.Repeat("x", 40), "x#")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		x, y := []string{a, b}, []string{c, d}
		if got, want := Key(x...) == Key(y...), slices.Equal(x, y); got != want {
			t.Errorf("Key(%q) and Key(%q): equal %v, want %v", x, y, got, want)
		}
		raw, made := string(appendTag(nil, a)), string(appendTag(nil, Key(c, d)))
		if (raw == made) != (a == Key(c, d)) {
			t.Errorf("%q and %q share %s", a, Key(c, d), raw)
		}
		for _, k := range []string{raw, made} {
			if strings.Count(k, "{") != 1 || strings.Count(k, "}") != 1 || !strings.HasSuffix(k, "}") {
				t.Errorf("hash tag of %q", k)
			}
			for i := range len(k) {
				if k[i] <= ' ' || k[i] >= 0x7f {
					t.Errorf("byte %#x in %q", k[i], k)
				}
			}
		}
		if s := slot(a); s < 0 || s >= slots {
			t.Errorf("slot %d", s)
		}
	})
}
