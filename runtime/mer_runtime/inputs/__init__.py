"""From a file to what the network reads: decoding, the face's crops, the voice's MFCCs."""
