package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
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
has to name it: as a DNS name, as spiffe://TRUST-DOMAIN/gateway/NAME, or as legation's nodes file says.

With --out it is written into a directory, beside two files by which Envoy watches its certificate and the CA: when
others are moved in their place, it uses them without a restart.`,
		Example: `  legation bootstrap --group edge --xds 10.0.0.5:18000 --companion 10.0.0.5:18001 > envoy.json
  envoy -c envoy.json

  legation bootstrap --group edge --xds a.example.com:18000 --xds b.example.com:18000 --companion a.example.com:18001 \
    --companion b.example.com:18001 --tls-cert /etc/envoy/edge.crt --tls-key /etc/envoy/edge.key --tls-ca /etc/envoy/ca.crt \
    --out /etc/envoy
  envoy -c /etc/envoy/envoy.json`,
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
			if out, _ := c.Flags().GetString("out"); out != "" {
				return writeBootstrap(c, o, out)
			}
			if o.TokenFile != "" {
				return usage{fmt.Errorf("--token-file takes --out: Envoy has the token through a file of its own, to read it again when it changes")}
			}
			text, err := envoy.JSON(envoy.Bootstrap(o))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), string(text))
			return err
		},
	}
	f := c.Flags()
	f.String("group", "", "the gateway or sidecar that this Envoy belongs to (its node.cluster)")
	f.Bool("load-reports", true, "have this Envoy report the requests that it sends to each service, every few seconds")
	f.String("out", "", "directory to write envoy.json into, and what has Envoy watch its certificates")
	f.String("out-as", "", "what that directory is called on Envoy's host; default the same")
	f.String("token-file", "", "file with the bearer token that Envoy shows, in the place of a certificate (path on Envoy's host)")
	bootstrapFlags(f)
	f.Lookup("xds").Usage += "; --server is the same"
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "server" { // of other verbs, which speak with the admin port of the same hosts
			name = "xds"
		}
		return pflag.NormalizedName(name)
	})
	return c
}

// writeBootstrap writes the configuration and the files that it refers to, each at once.
func writeBootstrap(c *cobra.Command, o envoy.BootstrapOptions, dir string) error {
	var err error
	if o.SDS, _ = c.Flags().GetString("out-as"); o.SDS == "" {
		if o.SDS, err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	if !path.IsAbs(o.SDS) {
		return usage{fmt.Errorf("--out-as %s: want the whole path, from /", o.SDS)}
	}
	files, err := envoy.BootstrapSecrets(o)
	if err != nil {
		return err
	}
	text, err := envoy.JSON(envoy.Bootstrap(o))
	if err != nil {
		return err
	}
	files["envoy.json"] = append(text, '\n')
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		to := filepath.Join(dir, name)
		if err := os.WriteFile(to+".tmp", files[name], 0o644); err != nil {
			return err
		}
		if err := os.Rename(to+".tmp", to); err != nil {
			return err
		}
		fmt.Fprintln(c.ErrOrStderr(), "written:", to)
	}
	return nil
}

// bootstrapFlags adds what an Envoy has to know before it connects. The paths are those of Envoy's host.
func bootstrapFlags(f *pflag.FlagSet) {
	f.String("node", "", "this Envoy's node id; default the gateway and the host's name")
	f.StringSlice("xds", []string{app.DefaultXDS}, "where legation serves xDS; again for further ones, which take over from one that fails")
	f.StringSlice("companion", []string{app.DefaultCompanion}, "where legation's auth and rate limit services answer; again for further ones")
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
	list := func(name string) string {
		values, _ := c.Flags().GetStringSlice(name)
		return strings.Join(values, ",")
	}
	o := envoy.BootstrapOptions{
		Node: cmp.Or(get("node"), get("group")+"-"+host), XDS: list("xds"), Companion: list("companion"),
		Admin: get("envoy-admin-address"), Zone: get("zone"), TLSCert: get("tls-cert"), TLSKey: get("tls-key"), TLSCA: get("tls-ca"),
		TokenFile: get("token-file"),
	}
	if err := checkBootstrapTLS(o); err != nil {
		return o, usage{err}
	}
	if o.MaxHeap, err = parseHeap(get("max-heap")); err != nil {
		return o, usage{fmt.Errorf("--max-heap %q: %w", get("max-heap"), err)}
	}
	for name, addresses := range map[string]string{"xds": o.XDS, "companion": o.Companion, "envoy-admin-address": o.Admin} {
		for _, address := range strings.Split(addresses, ",") {
			if err := checkAddress(strings.TrimSpace(address)); err != nil {
				return o, usage{fmt.Errorf("--%s %q: %w", name, addresses, err)}
			}
		}
	}
	return o, nil
}

// checkBootstrapTLS tells what an Envoy lacks to be known.
func checkBootstrapTLS(o envoy.BootstrapOptions) error {
	cert := o.TLSCert != "" && o.TLSKey != ""
	switch {
	case (o.TLSCert != "") != (o.TLSKey != ""), cert && o.TLSCA == "", o.TokenFile == "" && o.TLSCA != "" && !cert:
		return errors.New("mutual TLS takes all of --tls-cert, --tls-key and --tls-ca")
	case o.TokenFile == "":
		return nil
	case o.TLSCA == "":
		return errors.New("--token-file takes --tls-ca: a token goes to nobody but the control plane, by TLS")
	case !path.IsAbs(o.TokenFile):
		return fmt.Errorf("--token-file %s: want the whole path, from /", o.TokenFile)
	case !cert && !app.Local(strings.Split(o.Companion, ",")...):
		return errors.New("the companion takes certificates only: give --tls-cert and --tls-key, or run one beside Envoy, on loopback")
	}
	return nil
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
