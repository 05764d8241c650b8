//! Goals: what was to be reached, what was, and by how much it was missed.

use std::fmt;

use super::table::number;

/// A value that is to be at most so large, or at least.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    /// What is compared: `CPU per round trip, elbows ÷ copy loop`.
    pub(crate) what: String,
    pub(crate) found: f64,
    pub(crate) bound: Bound,
    pub(crate) digits: usize,
    /// It is not one of the main ones, and comes in a table of its own.
    pub(crate) is_further: bool,
}

/// How far a value may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(crate) fn at_most(what: impl Into<String>, bound: f64, found: f64, digits: usize) -> Self {
        Self { what: what.into(), found, bound: Bound::AtMost(bound), digits, is_further: false }
    }

    pub(crate) fn at_least(what: impl Into<String>, bound: f64, found: f64, digits: usize) -> Self {
        Self { what: what.into(), found, bound: Bound::AtLeast(bound), digits, is_further: false }
    }

    /// The same, not one of the main ones.
    pub(crate) fn further(self) -> Self {
        Self { is_further: true, ..self }
    }

    pub(crate) fn is_held(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.found <= bound,
            Bound::AtLeast(bound) => self.found >= bound,
        }
    }

    /// The bound, for people.
    pub(crate) fn bound(&self) -> String {
        match self.bound {
            Bound::AtMost(bound) => format!("≤ {}", number(bound, self.digits)),
            Bound::AtLeast(bound) => format!("≥ {}", number(bound, self.digits)),
        }
    }

    /// What was found, for people. One that is missed by little is shown with the digits that say so.
    pub(crate) fn found(&self) -> String {
        let (Bound::AtMost(bound) | Bound::AtLeast(bound)) = self.bound;
        let looks_held = number(self.found, self.digits) == number(bound, self.digits);
        let digits = if looks_held && !self.is_held() { self.digits + 2 } else { self.digits };
        number(self.found, digits)
    }

    /// `held`, or by how much it is missed.
    pub(crate) fn verdict(&self) -> String {
        if self.is_held() {
            return "held".to_owned();
        }
        let (Bound::AtMost(bound) | Bound::AtLeast(bound)) = self.bound;
        if bound == 0.0 {
            return format!("missed by {}", number(self.found, self.digits));
        }
        format!("missed by {} %", number(((self.found / bound - 1.0) * 100.0).abs(), 1))
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}: {}, {}", self.what, self.bound(), self.found(), self.verdict())
    }
}

#[cfg(test)]
mod tests {
    use super::Goal;

    #[test]
    fn goal_says_by_how_much_it_is_missed() {
        assert_eq!(Goal::at_most("x", 0.65, 0.78, 2).verdict(), "missed by 20.0 %");
        assert_eq!(Goal::at_least("x", 90.0, 45.0, 0).verdict(), "missed by 50.0 %");
        assert_eq!(Goal::at_most("x", 0.65, 0.65, 2).verdict(), "held");
        assert_eq!(Goal::at_most("x", 0.0, 0.25, 2).verdict(), "missed by 0.25");
    }

    #[test]
    fn value_that_only_looks_held_is_shown_with_more_digits() {
        assert_eq!(Goal::at_most("x", 1.0, 1.001, 2).found(), "1.0010");
    }
}
