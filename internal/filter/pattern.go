package filter

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"
)

const (
	maxRepeat      = 255      // PostgreSQL's DUPMAX
	maxPatternSize = 1000     // instructions of the compiled expression; PostgreSQL's time for one can grow with their cube
	maxPrinted     = 64 << 10 // bytes of what all expressions of a selector are for PostgreSQL; a class such as \pL has 10 KB
)

var errTooManyClasses = fmt.Errorf("the regular expressions of the selector are too large once their classes are written out for PostgreSQL: "+
	`at most %d bytes are allowed; use smaller classes, such as [a-z] instead of \pL`, maxPrinted)

// parsePattern reads a regular expression in the syntax of Go, which is RE2's.
func parsePattern(pattern string) (*syntax.Regexp, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		var wrong *syntax.Error
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("the regular expression is wrong: %s: %s", wrong.Code, shown(wrong.Expr))
		}
		return nil, fmt.Errorf("the regular expression is wrong: %w", err)
	}
	program, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, fmt.Errorf("the regular expression is wrong: %w", err)
	}
	if len(program.Inst) > maxPatternSize {
		return nil, fmt.Errorf("the regular expression is too large once its repetitions are written out: %d instructions; at most %d are allowed",
			len(program.Inst), maxPatternSize)
	}
	// Parsed anew: Simplify may have changed parts of it.
	return syntax.Parse(pattern, syntax.Perl)
}

// printPattern prints the meaning of a regular expression as one of PostgreSQL (an ARE). Nothing of its text is taken over, only the tree
// that Go matches by: every character but ASCII letters and digits is an escape, and every class a list of ranges.
// What does not mean the same on both sides is refused.
func printPattern(re *syntax.Regexp) (string, error) {
	var b strings.Builder
	if err := appendPattern(&b, re); err != nil {
		return "", err
	}
	if b.Len() > maxPrinted {
		return "", errTooManyClasses
	}
	return b.String(), nil
}

func appendPattern(b *strings.Builder, re *syntax.Regexp) error {
	switch re.Op {
	case syntax.OpEmptyMatch:
		b.WriteString("(?:)")
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if err := appendLiteral(b, r, re.Flags&syntax.FoldCase != 0); err != nil {
				return err
			}
		}
	case syntax.OpCharClass:
		return appendClass(b, re.Rune)
	case syntax.OpAnyCharNotNL:
		b.WriteString(`[^\u000A]`)
	case syntax.OpAnyChar:
		b.WriteString(`.`) // also a newline, unless PostgreSQL is told otherwise
	case syntax.OpBeginText:
		b.WriteString(`\A`)
	case syntax.OpEndText:
		b.WriteString(`\Z`)
	case syntax.OpCapture:
		return appendGroup(b, re.Sub[0])
	case syntax.OpStar:
		return appendRepeat(b, re.Sub[0], "*")
	case syntax.OpPlus:
		return appendRepeat(b, re.Sub[0], "+")
	case syntax.OpQuest:
		return appendRepeat(b, re.Sub[0], "?")
	case syntax.OpRepeat:
		if re.Min > maxRepeat || re.Max > maxRepeat {
			return fmt.Errorf("the regular expression repeats %s more than %d times, which PostgreSQL does not", shown(re.Sub[0].String()), maxRepeat)
		}
		quantifier := fmt.Sprintf("{%d,%d}", re.Min, re.Max)
		if re.Max < 0 {
			quantifier = fmt.Sprintf("{%d,}", re.Min)
		}
		return appendRepeat(b, re.Sub[0], quantifier)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			var err error
			if sub.Op == syntax.OpAlternate {
				err = appendGroup(b, sub)
			} else {
				err = appendPattern(b, sub)
			}
			if err != nil {
				return err
			}
		}
	case syntax.OpAlternate:
		for i, sub := range re.Sub {
			if i > 0 {
				b.WriteByte('|')
			}
			if err := appendPattern(b, sub); err != nil {
				return err
			}
		}
	case syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return fmt.Errorf(`the regular expression has a word boundary (\b or \B), which PostgreSQL takes differently; name the characters around instead, such as (?:^|\W)word(?:\W|$)`)
	case syntax.OpBeginLine, syntax.OpEndLine:
		return fmt.Errorf(`the regular expression has an anchor of a line ((?m) with ^ or $), which PostgreSQL takes differently; name the newline instead, such as (?:^|\n)`)
	case syntax.OpNoMatch:
		return errors.New("the regular expression matches nothing")
	default:
		return fmt.Errorf("the regular expression has %s, which PostgreSQL does not know", re.Op)
	}
	return nil
}

func appendGroup(b *strings.Builder, re *syntax.Regexp) error {
	b.WriteString("(?:")
	if err := appendPattern(b, re); err != nil {
		return err
	}
	b.WriteString(")")
	return nil
}

// appendRepeat leaves out whether few or many repetitions are preferred: that does not change whether there is a match.
func appendRepeat(b *strings.Builder, re *syntax.Regexp, quantifier string) error {
	if err := appendGroup(b, re); err != nil {
		return err
	}
	b.WriteString(quantifier)
	return nil
}

// appendLiteral prints one character, or, where case is folded, the class of those that it folds with.
func appendLiteral(b *strings.Builder, r rune, fold bool) error {
	if err := checkRune(r); err != nil {
		return err
	}
	if fold && unicode.SimpleFold(r) != r {
		ranges := []rune{r, r}
		for of := unicode.SimpleFold(r); of != r; of = unicode.SimpleFold(of) {
			ranges = append(ranges, of, of)
		}
		return appendClass(b, ranges)
	}
	appendRune(b, r)
	return nil
}

// What cannot stand in PostgreSQL's text is not asked for: a NUL, and half of a surrogate pair.
const firstSurrogate, lastSurrogate = 0xD800, 0xDFFF

func checkRune(r rune) error {
	if r == 0 || r >= firstSurrogate && r <= lastSurrogate {
		return fmt.Errorf("the regular expression has the character U+%04X, which no text of PostgreSQL holds", r)
	}
	return nil
}

// appendClass prints pairs of a first and a last character.
func appendClass(b *strings.Builder, ranges []rune) error {
	var parts strings.Builder
	add := func(first, last rune) {
		if first > last {
			return
		}
		appendRune(&parts, first)
		if last > first {
			parts.WriteByte('-')
			appendRune(&parts, last)
		}
	}
	for i := 0; i < len(ranges); i += 2 {
		first, last := max(ranges[i], 1), ranges[i+1]
		add(first, min(last, firstSurrogate-1))
		add(max(first, lastSurrogate+1), last)
	}
	if parts.Len() == 0 {
		return errors.New("the regular expression has a class with no character that a text of PostgreSQL holds")
	}
	b.WriteString("[" + parts.String() + "]")
	return nil
}

func appendRune(b *strings.Builder, r rune) {
	switch {
	case r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z':
		b.WriteRune(r)
	case r > 0xFFFF:
		fmt.Fprintf(b, `\U%08X`, r)
	default:
		fmt.Fprintf(b, `\u%04X`, r)
	}
}
