//! Decides which users are malformed and which accounts fail: evenly spread, exact in number, without a list.

/// What is wrong with an account's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// 404.
    NotFound,
    /// 500, at every try.
    ServerError,
    /// The closing balance is off by one smallest unit.
    BalanceMismatch,
    /// The answer is another account's.
    OtherAccount,
}

impl Fault {
    /// All kinds, in the order in which they take turns.
    pub const ALL: [Self; 4] = [Self::NotFound, Self::ServerError, Self::BalanceMismatch, Self::OtherAccount];
}

/// What is wrong with a user's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Malformed {
    /// `email` is not an address.
    InvalidEmail,
    /// There is no `email`.
    MissingEmail,
    /// There is no `id`.
    MissingId,
    /// The name carries a line break and a header.
    HeaderInName,
    /// `name` is a number.
    NameIsNumber,
    /// The record is a string.
    NotAnObject,
}

impl Malformed {
    /// All kinds, in the order in which they take turns.
    pub const ALL: [Self; 6] = [
        Self::InvalidEmail,
        Self::MissingEmail,
        Self::MissingId,
        Self::HeaderInName,
        Self::NameIsNumber,
        Self::NotAnObject,
    ];
}

/// Which users are malformed and which of the others have a faulty account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    users: u32,
    malformed: u32,
    faulty: u32,
}

impl Plan {
    /// `fail_share` is taken of the well-formed users and rounded to a whole number of them.
    pub(super) fn new(users: u32, malformed: u32, fail_share: f64) -> Self {
        let malformed = malformed.min(users);
        let well_formed = users - malformed;
        // A share that is not a number clamps to NaN, and casting that gives 0.
        let faulty = (f64::from(well_formed) * fail_share.clamp(0.0, 1.0)).round() as u32;
        Self { users, malformed, faulty: faulty.min(well_formed) }
    }

    /// How many users there are.
    pub fn users(&self) -> u32 {
        self.users
    }

    /// How many of them are malformed.
    pub fn malformed_users(&self) -> u32 {
        self.malformed
    }

    /// How many accounts are faulty; none of a malformed user.
    pub fn faulty_accounts(&self) -> u32 {
        self.faulty
    }

    /// What is wrong with the record of user number `index`.
    pub fn malformed(&self, index: u32) -> Option<Malformed> {
        let turn = marked(index, self.malformed, self.users)?;
        Some(Malformed::ALL[turn as usize % Malformed::ALL.len()])
    }

    /// What is wrong with the account of user number `index`.
    pub fn fault(&self, index: u32) -> Option<Fault> {
        if index >= self.users || self.malformed(index).is_some() {
            return None;
        }
        let place = index - marked_before(index, self.malformed, self.users);
        let turn = marked(place, self.faulty, self.users - self.malformed)?;
        Some(Fault::ALL[turn as usize % Fault::ALL.len()])
    }
}

/// How many of the first `index` of `all` are marked when `marks` of them are, evenly.
fn marked_before(index: u32, marks: u32, all: u32) -> u32 {
    (u64::from(index) * u64::from(marks)).checked_div(u64::from(all)).unwrap_or(0) as u32
}

/// The mark's number, counted from 0, when number `index` of `all` is marked.
fn marked(index: u32, marks: u32, all: u32) -> Option<u32> {
    let before = marked_before(index, marks, all);
    (index < all && marked_before(index + 1, marks, all) > before).then_some(before)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn marks_are_exact_in_number_disjoint_and_of_every_kind() {
        for (users, malformed, share) in
            [(1000, 10, 0.03), (7, 3, 0.5), (100, 0, 1.0), (100, 100, 1.0), (50_000, 12, 0.01)]
        {
            let plan = Plan::new(users, malformed, share);
            let (mut faults, mut records) = (BTreeMap::<Fault, u32>::new(), 0);
            for index in 0..users {
                records += u32::from(plan.malformed(index).is_some());
                if let Some(fault) = plan.fault(index) {
                    assert_eq!(plan.malformed(index), None);
                    *faults.entry(fault).or_default() += 1;
                }
            }
            assert_eq!(records, malformed);
            assert_eq!(faults.values().sum::<u32>(), (f64::from(users - malformed) * share).round() as u32);
            let (most, least) = (faults.values().max(), faults.values().min());
            assert!(most.unwrap_or(&0) - least.unwrap_or(&0) <= 1, "{faults:?}");
        }
    }

    #[test]
    fn a_share_that_makes_no_sense_is_moved_to_the_nearest_that_does() {
        assert_eq!(Plan::new(10, 20, 2.0).malformed_users(), 10);
        assert_eq!(Plan::new(10, 0, 2.0).faulty_accounts(), 10);
        assert_eq!(Plan::new(10, 0, f64::NAN).faulty_accounts(), 0);
        assert_eq!(Plan::new(0, 0, 0.5).fault(0), None);
    }
}
