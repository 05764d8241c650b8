//! Metrics as text, in two forms: `OpenMetrics` 1.0 and Prometheus' text format 0.0.4. Pure.
//!
//! Why no library: `prometheus-client`, which is the `OpenMetrics` project's own, writes the first form alone, and from a
//! registry of locked values; ours are read from workers and put into one of two forms, which differ in their
//! suffixes, units and ends. What is written is held against Prometheus' own parser of it (`tests/e2e/admin`).

use std::fmt::Write as _;
use std::time::Duration;

use super::exemplars::Exemplar;
use super::families::{Family, Kind};
use super::own::Distribution;

/// The form of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    OpenMetrics,
    Prometheus,
}

impl Form {
    /// The form that an `Accept` asks for: of those that it names, `OpenMetrics` where it weighs no less.
    pub(crate) fn wanted(accept: &str) -> Self {
        let weight = |media: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                parts.next().filter(|name| name.eq_ignore_ascii_case(media))?;
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                Some(quality.map_or(1.0, |quality| quality.parse::<f32>().unwrap_or(0.0)))
            });
            ranges.fold(0.0_f32, f32::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What was written so far.
#[derive(Debug)]
pub(crate) struct Text {
    form: Form,
    out: String,
}

/// Labels of a sample: names and values.
pub(crate) type Labels<'l> = &'l [(&'l str, &'l str)];

impl Text {
    pub(crate) fn new(form: Form) -> Self {
        Self { form, out: String::with_capacity(16 * 1024) }
    }

    /// Begins a metric. Its samples follow, and only those.
    pub(crate) fn family(&mut self, family: &Family) {
        let Family { name, kind, unit, help, .. } = family;
        let (suffix, word) = match (self.form, kind) {
            (Form::OpenMetrics, kind) => ("", kind.as_str()),
            (Form::Prometheus, Kind::Info) => (kind.suffix(), Kind::Gauge.as_str()),
            (Form::Prometheus, kind) => (kind.suffix(), kind.as_str()),
        };
        self.line(format_args!("# TYPE {name}{suffix} {word}"));
        if self.form == Form::OpenMetrics && !unit.is_empty() {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name}{suffix} {help}."));
    }

    /// A number of a metric.
    pub(crate) fn number(&mut self, family: &Family, labels: Labels<'_>, value: u64) {
        self.sample(family, family.kind.suffix(), labels, format_args!("{value}"));
    }

    /// The same with a fraction.
    pub(crate) fn fraction(&mut self, family: &Family, labels: Labels<'_>, value: f64) {
        self.sample(family, family.kind.suffix(), labels, format_args!("{value}"));
    }

    /// The same as text.
    pub(crate) fn text(&mut self, family: &Family, value: &str) {
        self.sample(family, family.kind.suffix(), &[], format_args!("{value}"));
    }

    /// The ranges of a histogram.
    pub(crate) fn histogram(
        &mut self,
        family: &Family,
        labels: Labels<'_>,
        distribution: &Distribution,
    ) {
        self.histogram_with(family, labels, distribution, &[]);
    }

    /// The same, with exemplars of its ranges, which `OpenMetrics` alone has.
    pub(crate) fn histogram_with(
        &mut self,
        family: &Family,
        labels: Labels<'_>,
        distribution: &Distribution,
        exemplars: &[Option<Exemplar>],
    ) {
        let is_time = family.unit == "seconds";
        let mut below = 0;
        let bounds = family.ranges.iter().map(|bound| bound_text(*bound, is_time));
        let bounds = bounds.chain(["+Inf".to_owned()]);
        let counts = distribution.counts.iter().copied().chain(std::iter::repeat(0));
        let exemplars = exemplars.iter().copied().chain(std::iter::repeat(None));
        for ((bound, count), exemplar) in bounds.zip(counts).zip(exemplars) {
            below += count;
            self.begin(family, "_bucket", labels, Some(&bound));
            match exemplar {
                Some(exemplar) if self.form == Form::OpenMetrics => {
                    let Exemplar { trace_id, value, at } = exemplar;
                    let (value, at) = (seconds(value), Duration::from_millis(at).as_secs_f64());
                    self.line(format_args!(
                        " {below} # {{trace_id=\"{trace_id}\"}} {value} {at:.3}"
                    ));
                }
                _ => self.line(format_args!(" {below}")),
            }
        }
        let sum = distribution.sum;
        if is_time {
            self.sample(family, "_sum", labels, format_args!("{}", seconds(sum)));
        } else {
            self.sample(family, "_sum", labels, format_args!("{sum}"));
        }
        self.sample(family, "_count", labels, format_args!("{below}"));
    }

    fn sample(
        &mut self,
        family: &Family,
        suffix: &str,
        labels: Labels<'_>,
        value: std::fmt::Arguments<'_>,
    ) {
        self.begin(family, suffix, labels, None);
        self.line(format_args!(" {value}"));
    }

    /// The name of a sample and its labels.
    fn begin(&mut self, family: &Family, suffix: &str, labels: Labels<'_>, bound: Option<&str>) {
        self.out.push_str(family.name);
        self.out.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            // Values are words of ours, which need no escapes.
            let _ = write!(self.out, "{separator}{name}=\"{value}\"");
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(text);
        self.out.push('\n');
    }

    /// All of it.
    pub(crate) fn end(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

#[allow(clippy::cast_precision_loss)] // Microseconds of 285 years fit.
pub(crate) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A bound as a float, which has a point (`OpenMetrics` 1.0, section "Considerations: Canonical Numbers").
fn bound_text(bound: u64, is_time: bool) -> String {
    let text = if is_time { seconds(bound).to_string() } else { bound.to_string() };
    if text.contains('.') { text } else { text + ".0" }
}

#[cfg(test)]
mod tests {
    use super::super::families::{BUILD, MESSAGE_SIZE, REQUESTS, ROUND};
    use super::*;

    fn written(form: Form) -> String {
        let mut text = Text::new(form);
        text.family(&BUILD);
        text.number(&BUILD, &[("version", "1.2.3")], 1);
        text.family(&REQUESTS);
        text.number(&REQUESTS, &[("method", "GET"), ("code", "200")], 7);
        text.family(&ROUND);
        text.histogram(&ROUND, &[], &Distribution { counts: vec![2, 1], sum: 1_500_000 });
        text.end()
    }

    #[test]
    fn both_forms_differ_in_suffixes_units_and_ends() {
        let open = written(Form::OpenMetrics);
        assert!(open.contains("# TYPE elbows_build info\n# HELP elbows_build The "), "{open}");
        assert!(open.contains("\nelbows_build_info{version=\"1.2.3\"} 1\n"), "{open}");
        assert!(open.contains("# TYPE elbows_requests counter\n"), "{open}");
        assert!(
            open.contains("\nelbows_requests_total{method=\"GET\",code=\"200\"} 7\n"),
            "{open}"
        );
        assert!(open.contains("# UNIT elbows_worker_round_seconds seconds\n"), "{open}");
        assert!(open.ends_with("\n# EOF\n"), "{open}");
        let plain = written(Form::Prometheus);
        assert!(plain.contains("# TYPE elbows_build_info gauge\n"), "{plain}");
        assert!(plain.contains("# TYPE elbows_requests_total counter\n"), "{plain}");
        assert!(!plain.contains("# UNIT") && !plain.contains("# EOF"), "{plain}");
    }

    #[test]
    fn ranges_have_all_below_them() {
        let text = written(Form::OpenMetrics);
        for line in [
            "elbows_worker_round_seconds_bucket{le=\"0.00005\"} 2",
            "elbows_worker_round_seconds_bucket{le=\"0.0001\"} 3",
            "elbows_worker_round_seconds_bucket{le=\"1.0\"} 3",
            "elbows_worker_round_seconds_bucket{le=\"+Inf\"} 3",
            "elbows_worker_round_seconds_sum 1.5",
            "elbows_worker_round_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let mut text = Text::new(Form::OpenMetrics);
        let counts = vec![1; MESSAGE_SIZE.ranges.len() + 1];
        text.histogram(&MESSAGE_SIZE, &[("from", "client")], &Distribution { counts, sum: 3 });
        let text = text.end();
        assert!(text.contains("_bucket{from=\"client\",le=\"125.0\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{from=\"client\",le=\"+Inf\"} 9\n"), "{text}");
        assert!(text.contains("_sum{from=\"client\"} 3\n"), "{text}");
    }

    #[test]
    fn exemplars_are_told_in_the_form_that_has_them() {
        use crate::http::trace_context::TraceId;

        let exemplar = Exemplar { trace_id: TraceId([0xab; 16]), value: 70, at: 1_795_849_444_007 };
        let written = |form| {
            let mut text = Text::new(form);
            let distribution = Distribution { counts: vec![2, 1], sum: 1_500_000 };
            text.histogram_with(&ROUND, &[], &distribution, &[None, Some(exemplar)]);
            text.end()
        };
        let open = written(Form::OpenMetrics);
        let id = "ab".repeat(16);
        let line =
            format!("_bucket{{le=\"0.0001\"}} 3 # {{trace_id=\"{id}\"}} 0.00007 1795849444.007\n");
        assert!(open.contains(&line) && open.matches(" # ").count() == 1, "{open}");
        assert!(!written(Form::Prometheus).contains('#'));
    }

    #[test]
    fn form_is_the_one_that_is_asked_for() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2";
        for (accept, form) in [
            (prometheus_3, Form::OpenMetrics),
            ("application/openmetrics-text", Form::OpenMetrics),
            ("Application/OpenMetrics-Text; version=1.0.0", Form::OpenMetrics),
            ("text/plain", Form::Prometheus),
            ("*/*", Form::Prometheus),
            ("", Form::Prometheus),
            ("application/openmetrics-text;q=0", Form::Prometheus),
            ("application/openmetrics-text;q=0.1, text/plain;q=0.9", Form::Prometheus),
            ("application/openmetrics-text;q=nonsense", Form::Prometheus),
        ] {
            assert_eq!(Form::wanted(accept), form, "{accept}");
        }
    }
}
