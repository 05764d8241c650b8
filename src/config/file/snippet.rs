//! Faults of a file as a person reads them: each with the line that it stands in. Pure.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::FileFault;

/// Writes the faults of `text`, which is the file at `path`.
#[must_use]
pub fn rendered(faults: &[FileFault], path: &str, text: &str) -> String {
    let renderer = Renderer::plain();
    let one = |fault: &FileFault| {
        let within = |at: &std::ops::Range<usize>| at.start.min(text.len())..at.end.min(text.len());
        let mut snippet = Snippet::source(text)
            .path(path)
            .annotation(AnnotationKind::Primary.span(within(&fault.at)));
        if let Some((at, what)) = &fault.also {
            snippet = snippet.annotation(AnnotationKind::Context.span(within(at)).label(what));
        }
        let report = [Level::ERROR.primary_title(&fault.title).element(snippet)];
        renderer.render(&report)
    };
    faults.iter().map(one).collect::<Vec<_>>().join("\n\n") + "\n"
}
