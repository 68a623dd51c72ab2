package control

import (
	"github.com/legation/legation/policy"
)

// Served is the policy that is being served, and its files; nil while there is none.
func (c *Controller) Served() (*Compiled, policy.Files) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outcome.Load().Revision == "" || len(c.tables) == 0 {
		return nil, nil
	}
	return c.tables[0], c.last
}

// Try compiles files as they would be served here, and serves nothing. They are all or nothing: the result is nil when there is
// a problem that is not a warning.
func (c *Controller) Try(files policy.Files) (*Compiled, policy.Problems, error) {
	lang := c.lang
	if c.o.Secrets != nil {
		lang = lang.WithSecrets(c.o.Secrets.Read(), c.o.Secrets.Kinds...)
	}
	model, problems := lang.Load(files)
	if model == nil {
		return nil, problems, nil
	}
	compiled, err := Compile(model)
	if told := Problems(err); len(told) > 0 {
		return nil, append(problems, told...), nil
	}
	return compiled, problems, err
}
