//! The statement as a PDF: from a checked account to bytes that are the same for the same input.
//!
//! Knows fonts, text shaping and the page; must not know where accounts come from or where the file goes. No clock and
//! no random number takes part.
//!
//! The way through the files: `render` (the entry point) → `layout` (what stands where) → `text` (characters to glyphs,
//! by `fonts`) → `canvas` (glyphs to printpdf operations) → `embed` (font programs into the file).

mod canvas;
mod document;
mod embed;
mod fonts;
mod layout;
mod render;
mod text;
mod wrap;

pub use document::Document;
pub use fonts::FontError;
pub use render::{Rendered, Renderer, sha256};

#[cfg(test)]
mod tests;
