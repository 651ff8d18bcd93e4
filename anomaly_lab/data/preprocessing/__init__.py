"""From a scan as read to the arrays a detector sees: resampling, windows, patches, augmentation."""
