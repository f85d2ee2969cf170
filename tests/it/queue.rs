//! The promises of the queue room, one test each.

mod books;
mod dead;
mod life;
mod redrive;
mod settle;
