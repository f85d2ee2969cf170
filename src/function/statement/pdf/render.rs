//! The entry point of the module: renders one document to bytes.
//!
//! Owns the fonts, the file's frame (information, language, identity) and compression. printpdf writes the pages;
//! the fonts are put in by `embed`, because printpdf would subset and compress them again for each document.

use flate2::Compression;
use lopdf::{Dictionary, Object, ObjectId, StringFormat};
use printpdf::{CustomPdfConformance, Mm, Op, PdfConformance, PdfDocument, PdfPage, PdfSaveOptions};
use sha2::{Digest, Sha256};

use super::super::locale::Locale;
use super::canvas::{Canvas, resource_name};
use super::document::Document;
use super::fonts::{FontError, FontKey, Fonts};
use super::layout;
use crate::base::Failure;

/// One statement as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The PDF.
    pub bytes: Vec<u8>,
    /// How many pages it has.
    pub pages: u32,
    /// The SHA-256 of `bytes`, in hex.
    pub sha256: String,
}

/// Renders statements. It holds the fonts: create one and share it among all threads.
#[derive(Debug)]
pub struct Renderer {
    fonts: Fonts,
}

impl Renderer {
    /// Parses the embedded fonts and prepares their common parts, which takes some tens of milliseconds.
    ///
    /// # Errors
    /// When an embedded font is damaged.
    pub fn new() -> Result<Self, FontError> {
        Ok(Self { fonts: Fonts::load()? })
    }

    /// Renders one statement. The same document always gives the same bytes.
    ///
    /// # Errors
    /// A failure of kind `render`, place `statement`: `too-many-pages` when there are more than the options allow,
    /// `font` or `pdf` when the file cannot be built. All are permanent.
    pub fn render(&self, document: &Document<'_>) -> Result<Rendered, Failure> {
        let locale = Locale::resolve(document.locale, &document.options.default_locale);
        let mut canvas = Canvas::new(&self.fonts);
        layout::draw(&mut canvas, document, &locale)?;
        let (pages, slices, faces) = canvas.finish();
        let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let mut file = pages_to_file(pages);
        let mut resources = Dictionary::new();
        for slice in slices {
            let id = self.fonts.slice(slice).add_to(&mut file);
            resources.set(resource_name(FontKey::Slice(slice)), id);
        }
        for (face, glyphs) in faces {
            let embedded = glyphs
                .embed(self.fonts.face(face), 100 + usize::from(face), Compression::new(6))
                .map_err(|error| Failure::new("render", "statement", "font", error))?;
            resources.set(resource_name(FontKey::Face(face)), embedded.add_to(&mut file));
        }
        set_fonts(&mut file, resources).ok_or_else(|| pdf_failure("the pages have no font resources"))?;
        frame(&mut file, document, &locale).ok_or_else(|| pdf_failure("the file has no catalog"))?;
        let bytes = write(file)?;
        let sha256 = sha256(&bytes);
        Ok(Rendered { bytes, pages: count, sha256 })
    }
}

fn pdf_failure(what: impl std::fmt::Display) -> Failure {
    Failure::new("render", "statement", "pdf", what)
}

fn pages_to_file(pages: Vec<Vec<Op>>) -> lopdf::Document {
    let mut document = PdfDocument::new("");
    // The default is PDF/X-3, which embeds a colour profile of 650 KB and an XMP packet with a random id.
    document.metadata.info.conformance = PdfConformance::Custom(CustomPdfConformance {
        requires_icc_profile: false,
        requires_xmp_metadata: false,
        ..CustomPdfConformance::default()
    });
    document.pages = pages.into_iter().map(|ops| PdfPage::new(Mm(210.0), Mm(297.0), ops)).collect();
    document.to_lopdf_document(&PdfSaveOptions::default(), &mut Vec::new())
}

/// Puts our fonts into the dictionary that all pages share.
fn set_fonts(file: &mut lopdf::Document, fonts: Dictionary) -> Option<()> {
    let page = *file.get_pages().values().next()?;
    let resources = reference(file.get_dictionary(page).ok()?, b"Resources")?;
    let shared = reference(file.get_dictionary(resources).ok()?, b"Font")?;
    file.set_object(shared, fonts);
    Some(())
}

fn reference(dictionary: &Dictionary, key: &[u8]) -> Option<ObjectId> {
    dictionary.get(key).and_then(Object::as_reference).ok()
}

/// Sets what printpdf fills with dates and random ids: information, language and identity.
fn frame(file: &mut lopdf::Document, document: &Document<'_>, locale: &Locale) -> Option<()> {
    let account = document.account;
    let title = format!("{} {} {}", locale.labels().statement, account.account, account.period);
    let mut info = Dictionary::new();
    info.set("Title", utf16(title.trim()));
    info.set("Author", utf16(&document.options.issuer));
    info.set("Producer", utf16("Nightmail"));
    let info_id = reference(&file.trailer, b"Info")?;
    file.set_object(info_id, info);
    let catalog_id = reference(&file.trailer, b"Root")?;
    let catalog = file.get_dictionary_mut(catalog_id).ok()?;
    catalog.set("Lang", Object::string_literal(locale.tag()));
    let mut viewer = Dictionary::new();
    viewer.set("DisplayDocTitle", true);
    catalog.set("ViewerPreferences", viewer);
    file.version = "1.7".to_owned();
    let id = identity(file);
    file.trailer.set("ID", vec![id.clone(), id]);
    Some(())
}

/// The file's id: a hash of all page contents and font programs, so that it is the same for the same input alone.
fn identity(file: &lopdf::Document) -> Object {
    let mut hash = Sha256::new();
    for object in file.objects.values() {
        if let Object::Stream(stream) = object {
            hash.update(&stream.content);
        }
    }
    Object::String(hash.finalize()[..16].to_vec(), StringFormat::Hexadecimal)
}

fn utf16(text: &str) -> Object {
    let mut bytes = vec![0xfe, 0xff];
    bytes.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    Object::String(bytes, StringFormat::Hexadecimal)
}

fn write(mut file: lopdf::Document) -> Result<Vec<u8>, Failure> {
    for object in file.objects.values_mut() {
        if let Object::Stream(stream) = object
            && !stream.dict.has(b"Filter")
        {
            let dictionary = std::mem::take(&mut stream.dict);
            let content = std::mem::take(&mut stream.content);
            *stream = super::embed::compressed(dictionary, &content, Compression::new(4));
        }
    }
    let mut bytes = Vec::with_capacity(64 * 1024);
    file.save_to(&mut bytes).map_err(pdf_failure)?;
    Ok(bytes)
}

/// The SHA-256 of a file, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
