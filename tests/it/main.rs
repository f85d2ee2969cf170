//! The rooms through their public doors: a real store in a temporary directory, time by a manual clock; and the whole
//! daemon from end to end, with a bank and a mail sink on loopback.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod format;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod model;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
