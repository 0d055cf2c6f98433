"""What commands leave behind when they are killed, and when disks, images, sensors and clocks fail."""
