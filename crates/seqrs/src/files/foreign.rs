//! Files of other formats, by how they begin.

/// Bytes of a file's beginning that [`recognise`] looks at.
pub(super) const START: usize = 16;

/// The format of a file that begins like this, if it is a known one. To be asked only
/// about a file that is no safetensors file.
pub(super) fn recognise(start: &[u8]) -> Option<&'static str> {
    let begins = |magic: &[u8]| start.starts_with(magic);
    if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") {
        Some("a zip archive (such as PyTorch's .pt and Keras' .keras)")
    } else if begins(b"\x80") && matches!(start.get(1), Some(2..=5)) {
        Some("a Python pickle (such as PyTorch's old .pt)")
    } else if begins(b"GGUF") {
        Some("a GGUF file")
    } else if begins(b"\x89HDF\r\n\x1a\n") {
        Some("an HDF5 file (such as Keras' old .h5)")
    } else if begins(b"\x93NUMPY") {
        Some("a NumPy array")
    } else if begins(b"\x1f\x8b") {
        Some("a gzip file")
    } else if start.get(4..8) == Some(b"TFL3") {
        Some("a TensorFlow Lite file")
    } else if is_onnx(start) {
        Some("an ONNX model (which this version does not read)")
    } else {
        None
    }
}

/// A protocol buffer whose field 1 is a small number (the version of the representation)
/// and whose next field is one that a model has there.
fn is_onnx(start: &[u8]) -> bool {
    const FIELDS: [u8; 7] = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42];
    matches!(start, [0x08, 1..=0x20, field, ..] if FIELDS.contains(field))
}
