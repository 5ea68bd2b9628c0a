package embedded

import (
	"context"
	"log/slog"
)

// mqttLog is mochi's log without payloads, passwords and noise: it logs whole
// packets, CONNECT included, and tells at Info of everything it starts.
type mqttLog struct{ slog.Handler }

func (q mqttLog) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, demoted(level))
}

func demoted(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

func (q mqttLog) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, demoted(r.Level), r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if !isPacket(a) {
			out.AddAttrs(a)
		}
		return true
	})
	return q.Handler.Handle(ctx, out)
}

func (q mqttLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	kept := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		if !isPacket(a) {
			kept = append(kept, a)
		}
	}
	return mqttLog{q.Handler.WithAttrs(kept)}
}

func (q mqttLog) WithGroup(name string) slog.Handler { return mqttLog{q.Handler.WithGroup(name)} }

func isPacket(a slog.Attr) bool { return a.Key == "pk" || a.Key == "packet" }
