package cli

import (
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/util/jsonpath"
)

// customColumns is the format NAME:path,NAME:path as kubectl knows it.
type customColumns struct {
	headers []string
	paths   []*jsonpath.JSONPath
	// plain leaves the headers out; they are printed once otherwise.
	plain bool
}

func newCustomColumns(spec string, noHeaders bool) (*customColumns, error) {
	c := &customColumns{plain: noHeaders}
	for column := range strings.SplitSeq(spec, ",") {
		header, path, ok := strings.Cut(column, ":")
		if !ok || header == "" || path == "" {
			return nil, usagef("--output custom-columns: %q is not HEADER:path, such as NAME:.metadata.name", column)
		}
		j := jsonpath.New(header).AllowMissingKeys(true)
		if err := j.Parse(relaxed(path)); err != nil {
			return nil, usagef("--output custom-columns: path %q: %w", path, err)
		}
		c.headers = append(c.headers, header)
		c.paths = append(c.paths, j)
	}
	return c, nil
}

// relaxed completes a path to a template: .a, a and {.a} mean the same.
func relaxed(path string) string {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "{"), "}")
	return "{." + strings.TrimPrefix(path, ".") + "}"
}

// PrintObj prints an object, or each of a list.
func (c *customColumns) PrintObj(o runtime.Object, w io.Writer) error {
	out := printers.GetNewTabWriter(w)
	if !c.plain {
		fmt.Fprintln(out, strings.Join(c.headers, "\t"))
		c.plain = true
	}
	each := func(o runtime.Object) error { return c.print(o, out) }
	var err error
	if meta.IsListType(o) {
		err = meta.EachListItem(o, each)
	} else {
		err = each(o)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

func (c *customColumns) print(o runtime.Object, w io.Writer) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	cells := make([]string, 0, len(c.paths))
	for i, path := range c.paths {
		results, err := path.FindResults(content)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.headers[i], err)
		}
		var values []string
		for _, r := range results {
			for _, v := range r {
				values = append(values, oneLine(fmt.Sprint(v.Interface())))
			}
		}
		if len(values) == 0 {
			values = []string{"<none>"}
		}
		cells = append(cells, strings.Join(values, ","))
	}
	_, err = fmt.Fprintln(w, printers.EscapeTerminal(strings.Join(cells, "\t")))
	return err
}
