package oidc

// Demands tells where browsers are sent to.
func (o *OIDC) Demands() string { return "a session, or a login at " + o.Issuer }
