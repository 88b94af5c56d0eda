"""ECKD DASDs on IBM Z: off the ignore list, online, formatted on order only, and offline again."""
