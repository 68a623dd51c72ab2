package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/legation/legation/app"
	"github.com/legation/legation/envoy"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func bootstrapCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bootstrap",
		Short: "Print the configuration that an Envoy on another host starts with",
		Long: `Print, as JSON, the configuration that connects an Envoy to legation serve: it says which gateway or sidecar the
Envoy belongs to and where xDS and the companion are; everything else comes over xDS. With mutual TLS, the certificate
has to name it: as a DNS name, or as spiffe://TRUST-DOMAIN/gateway/NAME.`,
		Example: `  legation bootstrap --group edge --xds 10.0.0.5:18000 --companion 10.0.0.5:18001 > envoy.json
  envoy -c envoy.json`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := bootstrapOptions(c)
			if err != nil {
				return err
			}
			if o.Group, _ = c.Flags().GetString("group"); o.Group == "" {
				return usage{fmt.Errorf("name the gateway that this Envoy belongs to with --group")}
			}
			reports, _ := c.Flags().GetBool("load-reports")
			o.Quiet = !reports
			text, err := envoy.JSON(envoy.Bootstrap(o))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), string(text))
			return err
		},
	}
	c.Flags().String("group", "", "the gateway or sidecar that this Envoy belongs to (its node.cluster)")
	c.Flags().Bool("load-reports", true, "have this Envoy report the requests that it sends to each service, every few seconds")
	bootstrapFlags(c.Flags())
	return c
}

// bootstrapFlags adds what an Envoy has to know before it connects. The paths are those of Envoy's host.
func bootstrapFlags(f *pflag.FlagSet) {
	f.String("node", "", "this Envoy's node id; default the gateway and the host's name")
	f.String("xds", app.DefaultXDS, "where legation serves xDS")
	f.String("companion", app.DefaultCompanion, "where legation's auth and rate limit services answer")
	f.String("envoy-admin-address", app.DefaultEnvoyAdmin, "where Envoy's own admin answers")
	f.String("zone", "", "the zone that this Envoy stands in, for services that prefer their own (loadBalancer.zoneAware)")
	f.String("max-heap", "1GiB", "memory that Envoy may take (512MiB, 2GiB): four fifths of its container's")
	f.String("tls-cert", "", "Envoy's certificate (PEM, path on Envoy's host)")
	f.String("tls-key", "", "its key (PEM, path on Envoy's host)")
	f.String("tls-ca", "", "the CA of legation's certificate (PEM, path on Envoy's host)")
}

func bootstrapOptions(c *cobra.Command) (envoy.BootstrapOptions, error) {
	get := func(name string) string {
		value, _ := c.Flags().GetString(name)
		return value
	}
	host, err := os.Hostname()
	if err != nil {
		host = "envoy"
	}
	o := envoy.BootstrapOptions{
		Node: cmp.Or(get("node"), get("group")+"-"+host), XDS: get("xds"), Companion: get("companion"),
		Admin: get("envoy-admin-address"), Zone: get("zone"), TLSCert: get("tls-cert"), TLSKey: get("tls-key"), TLSCA: get("tls-ca"),
	}
	if some := o.TLSCert + o.TLSKey + o.TLSCA; some != "" && (o.TLSCert == "" || o.TLSKey == "" || o.TLSCA == "") {
		return o, usage{fmt.Errorf("mutual TLS takes all of --tls-cert, --tls-key and --tls-ca")}
	}
	if o.MaxHeap, err = parseHeap(get("max-heap")); err != nil {
		return o, usage{fmt.Errorf("--max-heap %q: %w", get("max-heap"), err)}
	}
	for _, name := range []string{"xds", "companion", "envoy-admin-address"} {
		for _, address := range strings.Split(get(name), ",") {
			if err := checkAddress(address); err != nil {
				return o, usage{fmt.Errorf("--%s %q: %w", name, get(name), err)}
			}
		}
	}
	return o, nil
}

// leastHeap is what an Envoy with few routes needs, in bytes.
const leastHeap = 64 << 20

// parseHeap reads a size of memory, in bytes.
func parseHeap(text string) (uint64, error) {
	for unit, shift := range map[string]uint{"MiB": 20, "GiB": 30} {
		number, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 24)
		if err != nil {
			break
		}
		if n<<shift < leastHeap {
			return 0, fmt.Errorf("want at least %dMiB", leastHeap>>20)
		}
		return n << shift, nil
	}
	return 0, fmt.Errorf("want a size such as 512MiB or 2GiB")
}

// checkAddress tells whether Envoy can be given the address.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return fmt.Errorf("want host:port, as in 10.0.0.5:18000")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("want a port from 1 to 65535")
	}
	if strings.ContainsFunc(host, func(r rune) bool { return !strings.ContainsRune(hostRunes, r) }) {
		return fmt.Errorf("want an IP address or a host name, not %q", host)
	}
	return nil
}

// hostRunes is what IP addresses and host names are made of.
const hostRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:"
