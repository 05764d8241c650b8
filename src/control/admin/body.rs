//! The body of an answer: bytes, or events as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::places::Busy;

/// The body of an answer. As long as it is there its connection is busy.
pub(super) struct AnswerBody {
    content: Content,
    _busy: Busy,
}

enum Content {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl AnswerBody {
    pub(super) fn whole(bytes: impl Into<Bytes>, busy: Busy) -> Self {
        let bytes = bytes.into();
        Self { content: Content::Whole((!bytes.is_empty()).then_some(bytes)), _busy: busy }
    }

    pub(super) const fn events(events: mpsc::Receiver<Bytes>, busy: Busy) -> Self {
        Self { content: Content::Events(events), _busy: busy }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = |bytes| Ok(Frame::data(bytes));
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(data)),
            Content::Events(events) => events.poll_recv(context).map(|bytes| bytes.map(data)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Events(_) => SizeHint::default(),
        }
    }
}
