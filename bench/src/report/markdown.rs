//! `docs/benchmarks.md` and the charts beside it: written in one go, when everything is measured.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::{Section, Table, svg};
use crate::machine::Machine;
use crate::proxies::Proxy;

/// Where the charts are, seen from the document.
const CHARTS: &str = "benchmarks";

/// Writes the document into `docs`, and a chart for each section that has one.
pub(crate) fn write(docs: &Path, machine: &Machine, sections: &[Section]) -> io::Result<()> {
    let charts = docs.join(CHARTS);
    fs::create_dir_all(&charts)?;
    for section in sections {
        if let Some(chart) = svg::draw(section) {
            fs::write(charts.join(format!("{}.svg", section.name)), chart)?;
        }
    }
    // The document last, and in one step: half of it is never seen.
    let draft = docs.join("benchmarks.md.draft");
    fs::write(&draft, document(machine, sections))?;
    fs::rename(draft, docs.join("benchmarks.md"))
}

/// The document.
fn document(machine: &Machine, sections: &[Section]) -> String {
    let mut text = String::from(
        "# Benchmarks

<!-- Written by `cargo xtask bench`. Do not edit: the next run writes it anew. -->

elbows beside nginx, HAProxy, Envoy, Caddy, Traefik and a bare copy loop, on the same work, in one run of

```sh
cargo xtask bench
```

It takes about 30 minutes on a machine that does nothing else. Every number here is the program's.

## How

- One proxy at a time, on one core; the load and the application, programs of the bench, are on another. The proxies take
  turns, in rounds: three where time is measured, two where bytes are counted. A
  number is the median of the rounds, with the least and the most of them behind it. A goal compares medians; the best peer
  is the one of the five others with the least.
- CPU is what the proxy's threads and those of its children ran, the kernel's work for them included
  (`/proc/PID/task/*/schedstat`).
- The copy loop is the limit: it strips the PROXY header, parses nothing and copies, one read(2) and one write(2) at a time
  on epoll(7). It forwards no header, keeps no time and checks nothing. Where there is much to pass on, the same loop moves it
  by splice(2).
- elbows runs with its defaults: frames followed, pings armed, counters on. All have one thread (Go's two run on as many as
  their runtime likes, with `GOMAXPROCS=1`, on the one core), room for 9,900 connections, and the access log off. Half of the
  connections begin with a PROXY header of version 1, half of version 2; the client's address goes on in `X-Forwarded-For`.
- Where a proxy does not do what is measured, its cell says so.

",
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "## Machine\n\n| | |\n|---|---|");
    for (name, value) in &machine.facts {
        let _ = writeln!(text, "| {name} | {} |", escape(value));
    }
    text.push_str("\n## Goals\n\nHow fast and how small elbows is to be.\n\n");
    text.push_str(&goals(sections, false));
    text.push_str("\n## Further bounds\n\nWhat further cases are to keep within.\n\n");
    text.push_str(&goals(sections, true));
    for section in sections {
        let _ = writeln!(text, "\n## {}\n\n{}\n", section.title, section.text.trim_end());
        if section.chart.is_some() {
            let _ = writeln!(text, "![{}]({CHARTS}/{}.svg)\n", section.title, section.name);
        }
        text.push_str(&table(&section.table));
        let _ = writeln!(text, "\nBy itself: `cargo xtask bench --case {}`", section.name);
    }
    let _ = writeln!(text, "\n## Settings of the proxies");
    for proxy in Proxy::ALL.into_iter().filter(|proxy| !proxy.is_limit()) {
        let _ = writeln!(text, "\n{}:\n\n```text\n{}```", proxy.as_str(), proxy.settings());
    }
    text
}

/// A table of the main goals, or of the further ones.
fn goals(sections: &[Section], is_further: bool) -> String {
    let mut text = String::from("| case | goal | bound | found | |\n|---|---|---|---|---|\n");
    let goals =
        sections.iter().flat_map(|section| section.goals.iter().map(move |goal| (section, goal)));
    for (section, goal) in goals.filter(|(_, goal)| goal.is_further == is_further) {
        let verdict =
            if goal.is_held() { goal.verdict() } else { format!("**{}**", goal.verdict()) };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {verdict} |",
            section.title,
            escape(&goal.what),
            goal.bound(),
            goal.found()
        );
    }
    text
}

fn table(table: &Table) -> String {
    let mut text = String::new();
    for (index, line) in table.lines().into_iter().enumerate() {
        let cells: Vec<_> = line.iter().map(|cell| escape(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|---|{}", "---:|".repeat(line.len() - 1));
        }
    }
    text
}

fn escape(cell: &str) -> String {
    cell.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::machine::Machine;
    use crate::report::{Cell, Chart, Goal, Section, Spread, Table};

    #[test]
    fn document_has_the_table_the_goal_and_the_chart() {
        let table = Table {
            corner: "proxy",
            columns: vec!["CPU µs".to_owned()],
            rows: vec![("elbows".to_owned(), vec![Cell::Number(Spread::of([1.0, 3.0, 2.0]), 1)])],
        };
        let section = Section {
            name: "echo64",
            title: "Echo",
            text: "Back and forth.".to_owned(),
            chart: Some(Chart::of(&table, "CPU µs", &[0])),
            goals: vec![
                Goal::at_most("CPU", 1.0, 2.0, 2),
                Goal::at_most("push", 2.0, 1.0, 1).further(),
            ],
            table,
        };
        let docs = tempfile::tempdir().unwrap();
        let machine = Machine { facts: vec![("kernel", "6.1".to_owned())] };
        write(docs.path(), &machine, &[section]).unwrap();
        let text = std::fs::read_to_string(docs.path().join("benchmarks.md")).unwrap();
        for line in [
            "| kernel | 6.1 |",
            "| Echo | CPU | ≤ 1.00 | 2.00 | **missed by 100.0 %** |",
            "## Further bounds\n\nWhat further cases are to keep within.\n\n\
             | case | goal | bound | found | |\n|---|---|---|---|---|\n| Echo | push | ≤ 2.0 | 1.0 | held |\n",
            "![Echo](benchmarks/echo64.svg)",
            "| proxy | CPU µs |\n|---|---:|\n| elbows | 2.0 (1.0 to 3.0) |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let chart = std::fs::read_to_string(docs.path().join("benchmarks/echo64.svg")).unwrap();
        assert!(chart.contains(">elbows</text>"), "{chart}");
        assert!(!docs.path().join("benchmarks.md.draft").exists());
    }
}
