package expr

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// inCIDR is the function inCIDR(address, range): whether a range has an address. IPv4 addresses written as IPv6 count as
// IPv4. What is no address or no range is an error, so that neither it nor its opposite holds.
var inCIDR = cel.Function("inCIDR", cel.Overload("in_cidr_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
	cel.BinaryBinding(func(address, within ref.Val) ref.Val {
		text, ok := address.(types.String)
		if !ok {
			return types.MaybeNoSuchOverloadErr(address)
		}
		written, ok := within.(types.String)
		if !ok {
			return types.MaybeNoSuchOverloadErr(within)
		}
		a, err := netip.ParseAddr(string(text))
		if err != nil {
			return types.WrapErr(errAddress)
		}
		p, err := parseRange(string(written))
		if err != nil {
			return types.WrapErr(err)
		}
		return types.Bool(p.Contains(a.WithZone("").Unmap()))
	})))

var errAddress = errors.New("want an address")

// parseRange reads an address, or a range whose bits behind the prefix are 0.
func parseRange(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("want an address or a range such as 10.0.0.0/8, got %q", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	const mapped = 96 // bits that all IPv4 addresses in IPv6 begin with
	switch {
	case err != nil:
		return p, fmt.Errorf("want an address or a range such as 10.0.0.0/8, got %q", text)
	case p.Addr().Is4In6() && p.Bits() < mapped:
		return p, fmt.Errorf("%q has IPv4 and other addresses: write two ranges", text)
	case p.Addr().Is4In6():
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits behind its first %d, which do not count: write %s", text, p.Bits(), p.Masked())
	}
	return p, nil
}

// checkLiterals looks at what an expression hands to functions that take only some texts.
func checkLiterals(tree *cel.Ast) error {
	var first *Error
	checked := tree.NativeRep()
	refuse := func(e ast.Expr, format string, args ...any) {
		at := checked.SourceInfo().GetStartLocation(e.ID())
		if first == nil {
			first = &Error{max(1, at.Line()), max(1, at.Column()+1), fmt.Sprintf(format, args...)}
		}
	}
	ast.PreOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		args := e.AsCall().Args()
		if len(args) == 0 {
			return
		}
		last := args[len(args)-1]
		text, constant := literal(last)
		switch e.AsCall().FunctionName() {
		case "matches":
			if _, err := regexp.Compile(text); err != nil {
				refuse(last, "%v", err)
			}
			if !constant {
				refuse(last, "write the pattern of matches in quotes: one that is made of values may take its time")
			}
		case "inCIDR":
			if _, err := parseRange(text); err != nil && constant {
				refuse(last, "%v", err)
			}
		}
	}))
	if first != nil {
		return first
	}
	return nil
}

// literal is a text that is written out.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}
