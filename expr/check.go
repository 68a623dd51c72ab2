package expr

import "strings"

var valueErrors, conditionErrors memo[error]

// CheckValue tells what is wrong with an expression that is to be a [Value]: an [*Error], or nil. It costs little to ask again.
func CheckValue(expression string) error {
	return valueErrors.of(expression, func(text string) error {
		_, err := CompileValue(text)
		return err
	})
}

// CheckCondition is CheckValue for a [Condition].
func CheckCondition(expression string) error {
	return conditionErrors.of(expression, func(text string) error {
		_, err := CompileCondition(text)
		return err
	})
}

// What some characters cost more than others: a bracket is a level, or a macro that grows, and the parts of lists and maps
// are values of their own.
const (
	bracketCost = 16
	partCost    = 8
)

// Cost is about what it takes to check an expression, before that is done. The unit is a character of a plain one: some
// 2 µs and 800 bytes.
func Cost(expression string) int {
	cost := len(expression)
	for _, bracket := range []string{"(", "[", "{", "?"} {
		cost += bracketCost * strings.Count(expression, bracket)
	}
	return cost + partCost*(strings.Count(expression, ",")+strings.Count(expression, ":"))
}
