package expr

import "testing"

// BenchmarkCondition is a rule as policies have them, of a caller whose roles have to be looked at.
func BenchmarkCondition(b *testing.B) {
	for name, expression := range map[string]string{
		"roles":   "request.method == 'GET' || 'admin' in identity.roles",
		"headers": "request.headers['x-team'] == 'blue' && request.url_path.startsWith('/a')",
		"address": "inCIDR(source.address, '192.0.2.0/24')",
		"loop":    "identity.roles.exists(r, r.startsWith('ad'))",
	} {
		b.Run(name, func(b *testing.B) {
			c, err := CompileCondition(expression)
			if err != nil {
				b.Fatal(err)
			}
			f := facts(b)
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := c.Holds(f); !ok {
					b.Fatal(err)
				}
			}
		})
	}
}
