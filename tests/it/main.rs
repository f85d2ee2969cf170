//! The rooms through their public doors: a real store in a temporary directory, time by a manual clock. And the binary
//! as its users meet it: real processes on loopback.

#[cfg(feature = "demo")]
#[cfg(test)]
mod commands;
#[cfg(test)]
mod format;
#[cfg(test)]
mod model;
#[cfg(feature = "demo")]
#[cfg(test)]
mod process;
#[cfg(test)]
mod queue;
#[cfg(feature = "demo")]
#[cfg(test)]
mod relay;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
