"""From a scan as read to the arrays that detectors see: resampling, intensity range, patches, augmentation."""
