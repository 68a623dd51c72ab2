package main

import (
	"net"
	"strconv"

	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
)

func echoCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "echo",
		Short:   "Run a sample upstream that tells what it received",
		Long:    `Answer every HTTP request with what was received, as JSON, and with the name given here in the header x-service.`,
		Example: `  legation echo --port 9001 --name orders-v1`,
		Args:    nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			name, _ := c.Flags().GetString("name")
			host, _ := c.Flags().GetString("address")
			port, _ := c.Flags().GetUint16("port")
			return app.Echo{Name: name, Address: net.JoinHostPort(host, strconv.Itoa(int(port)))}.Run(c.Context())
		},
	}
	c.Flags().String("name", "echo", "how the upstream calls itself")
	c.Flags().String("address", "127.0.0.1", "IP address to listen on")
	c.Flags().Uint16("port", 9001, "port to listen on")
	return c
}
